"""PDF as the parts of a document, page by page, by pypdf."""

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BufferedReader
from typing import Any, Final

from ragengine.corpus.splitting import LONGEST_HEADING, Page, Part, Text, Title
from ragengine.installation import missing_package
from ragengine.messages import one_line

_LONGEST_PAGE: Final = 1 << 24
"""Characters of a page; pypdf's own limits hold for what is unpacked, parsed and repeated to get it."""


def read_pdf(file: BufferedReader) -> Iterator[Part]:
    """Stream the text of a PDF; only one page is held at a time, and text in pictures is not read.

    Raises:
        ValueError: it is damaged, encrypted, or more than its text can need.
        DependencyError: pypdf is not installed.
    """
    reader = _Reader(file)
    if title := reader.title():
        yield Title(title)
    for number in range(reader.count):
        yield Page(number + 1)
        for line in reader.page(number).splitlines():
            yield Text(line)


class _Reader:
    """pypdf's reader, whose limits and errors hold for each call: between them other code runs."""

    def __init__(self, file: BufferedReader) -> None:
        try:
            import pypdf
        except ModuleNotFoundError as reason:
            raise missing_package("PDF files need", reason, "documents") from reason
        # It warns of every oddity of a file, quoting it: for its own log, if somebody listens there.
        logging.getLogger("pypdf").addHandler(logging.NullHandler())
        with _guarded():
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise ValueError("it is encrypted; save it without a password")
            self._pages: list[Any] = list(reader.pages)
            self._reader = reader
        self.count = len(self._pages)

    def title(self) -> str:
        """The title in the document's properties; empty where there is none of use."""
        with contextlib.suppress(ValueError), _guarded():
            found = None if self._reader.metadata is None else self._reader.metadata.title
            title = _encodable(" ".join(str(found or "").split()))
            return title if len(title) <= LONGEST_HEADING else ""
        return ""

    def page(self, number: int) -> str:
        """The text of a page, whose objects are forgotten then."""
        page, self._pages[number] = self._pages[number], None
        with _guarded(f"page {number + 1}: "):
            text = page.extract_text()
            if len(text) > _LONGEST_PAGE:
                raise ValueError(f"it has {len(text)} characters, more than the {_LONGEST_PAGE} of a page")
        return _encodable(text)


@contextlib.contextmanager
def _guarded(where: str = "") -> Iterator[None]:
    """Let pypdf start no process, and turn what it raises into :class:`ValueError`.

    A damaged file makes it raise nearly anything: ``KeyError``, ``AttributeError``, ``RecursionError``.
    """
    import pypdf

    try:
        with _settings(pypdf):
            yield
    except MemoryError:
        raise
    except ValueError as reason:
        raise ValueError(f"{where}{one_line(reason)}") from reason
    except pypdf.errors.DependencyError as reason:
        raise ValueError(f"{where}it is encrypted with AES; run pip install cryptography") from reason
    except Exception as reason:
        raise ValueError(
            f"{where}it is damaged, or not a PDF ({type(reason).__name__}: {one_line(reason)}); "
            "save or print it as PDF again"
        ) from reason


def _settings(pypdf: Any) -> AbstractContextManager[Any]:
    settings: AbstractContextManager[Any] = pypdf.apply_configuration(jbig2dec_binary=None)
    return settings


def _encodable(text: str) -> str:
    """``text`` with a sign for what no UTF-8 text can hold: a font may map its glyphs to anything."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
