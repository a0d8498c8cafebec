"""Small files as other programs write them."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError


def read(path: Path, content: bytes | str, options: ReadingOptions | None = None) -> list[Passage]:
    """The passages of a file of this content."""
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return list(Corpus.open(path, options).read())


def read_or_refuse(path: Path, content: bytes) -> list[Passage] | str:
    """The passages of a file of this content, or what the error says."""
    try:
        return read(path, content)
    except PassagesError as error:
        return str(error)


def pdf(pages: Sequence[Sequence[str]], title: str = "", extra: bytes = b"") -> bytes:
    """A PDF with these lines on its pages; ``extra`` are more entries of its trailer."""
    content = bytearray(b"%PDF-1.4\n")
    places: list[int] = []

    def add(body: bytes) -> None:
        places.append(len(content))
        content.extend(b"%d 0 obj\n%s\nendobj\n" % (len(places), body))

    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    add(b"<< /Type /Catalog /Pages 2 0 R >>")
    add(b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)))
    add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, lines in enumerate(pages):
        add(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * number)
        )
        shown = b" ".join(b"(%s) Tj T*" % line.encode("latin-1") for line in lines)
        stream = b"BT /F1 12 Tf 72 720 Td 14 TL %s ET" % shown
        add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    add(b"<< /Title (%s) >>" % title.encode("latin-1"))
    table = len(content)
    entries = b"".join(b"%010d 00000 n \n" % place for place in places)
    content += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, entries)
    content += b"trailer << /Size %d /Root 1 0 R /Info %d 0 R %s >>\n" % (len(places) + 1, len(places), extra)
    content += b"startxref\n%d\n%%%%EOF\n" % table
    return bytes(content)


def rezipped(content: bytes, changed: dict[str, bytes]) -> bytes:
    """A zip archive with the content of some of its members changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return file.getvalue()
