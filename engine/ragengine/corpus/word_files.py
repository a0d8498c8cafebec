"""DOCX as the parts of a document, by python-docx: headings, paragraphs and tables."""

import zipfile
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from typing import Any, Final

from ragengine.corpus.splitting import (
    LONGEST_BLOCK,
    LONGEST_HEADING,
    Block,
    Heading,
    Page,
    Part,
    Text,
    Title,
)
from ragengine.installation import missing_package
from ragengine.messages import one_line

_MOST_XML: Final = 1 << 26
"""Bytes of XML, unpacked: some ten thousand pages; its tree takes several times as much memory."""
_MOST_MEMBERS: Final = 10_000
_CHUNK: Final = 1 << 16
_XML: Final = (".xml", ".rels")
_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SPACES: Final = frozenset({f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}p"})
_WRAPPERS: Final = frozenset({f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}smartTag", f"{_W}ins"})
_MOST_BASES: Final = 20  # styles that a style is based on


def read_docx(file: BufferedReader) -> Iterator[Part]:
    """Stream the parts of a DOCX file.

    Raises:
        ValueError: it is damaged, no DOCX, or a bomb.
        DependencyError: python-docx is not installed.
    """
    try:
        import docx
    except ModuleNotFoundError as reason:
        raise missing_package("DOCX files need", reason, "documents") from reason
    try:
        document = docx.Document(_texts_only(file))
        yield from _Document(document).parts()
    except (MemoryError, GeneratorExit):
        raise
    except _RefusedError:
        raise
    except Exception as reason:  # a damaged file makes python-docx raise nearly anything
        raise ValueError(
            f"it is damaged, or not a DOCX ({type(reason).__name__}: {one_line(reason)}); save it again"
        ) from reason


class _RefusedError(ValueError):
    """The file is refused for a reason that says what to do."""


def _texts_only(file: BufferedReader) -> BytesIO:
    """The package with its XML, unpacked, and empty pictures.

    python-docx unpacks each member whole, whatever its size: a bomb would take all memory.
    """
    copy = BytesIO()
    left = _MOST_XML
    with zipfile.ZipFile(file) as package, zipfile.ZipFile(copy, "w") as texts:
        members = package.infolist()
        if len(members) > _MOST_MEMBERS:
            raise _RefusedError(f"it has {len(members)} parts, more than the {_MOST_MEMBERS} that are read")
        for member in members:
            content = b""
            if member.filename.endswith(_XML):
                content = _unpacked(package, member, left)
                left -= len(content)
            texts.writestr(zipfile.ZipInfo(member.filename), content)
    copy.seek(0)
    return copy


def _unpacked(package: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The content of a member, unpacked piece by piece: its size is what a forger says."""
    content = bytearray()
    with package.open(member) as file:
        while piece := file.read(_CHUNK):
            content += piece
            if len(content) > most:
                raise _RefusedError(
                    f"its text unpacks to more than {_MOST_XML} bytes; split the document, or save it as text"
                )
    return bytes(content)


class _Document:
    def __init__(self, document: Any) -> None:
        self._document = document
        self._levels: dict[str | None, int | None] = {}

    def parts(self) -> Iterator[Part]:
        kinds = (relation.reltype for relation in self._document.part.package.rels.values())
        if any(kind.endswith("/core-properties") for kind in kinds):  # else python-docx makes some up
            title = " ".join((self._document.core_properties.title or "").split())
            if title and len(title) <= LONGEST_HEADING:
                yield Title(title)
        yield from self._below(self._document.element.body)

    def _below(self, element: Any) -> Iterator[Part]:
        for child in element:
            if child.tag == f"{_W}p":
                yield from self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                yield from _table(child)
            elif child.tag in _WRAPPERS:
                yield from self._below(child)

    def _paragraph(self, paragraph: Any) -> Iterator[Part]:
        text = _text(paragraph)
        level = self._level(paragraph.style)
        if text and level is not None and len(text) <= LONGEST_HEADING:
            yield Heading(text, level)
        elif text:
            yield Text(text)
        if any(mark.get(f"{_W}type") == "page" for mark in paragraph.iter(f"{_W}br")):
            yield Page()

    def _level(self, style_id: str | None) -> int | None:
        """The level of a heading with this style: that of ``Heading 2`` is 2, of ``Title`` 0."""
        if style_id not in self._levels:
            self._levels[style_id] = self._level_of_style(style_id)
        return self._levels[style_id]

    def _level_of_style(self, style_id: str | None) -> int | None:
        style = next((one for one in self._document.styles if one.style_id == style_id), None)
        for _ in range(_MOST_BASES):  # it may be based on itself
            if style is None:
                break
            name = (style.name or "").lower()
            if name == "title":
                return 0
            kind, _, number = name.partition(" ")
            if kind == "heading" and len(number) == 1 and "1" <= number <= "9":
                return int(number)
            style = getattr(style, "base_style", None)
        return None


def _table(table: Any) -> Iterator[Part]:
    rows: list[str] = []
    characters = 0
    for row in table.iter(f"{_W}tr"):
        if next(row.iterancestors(f"{_W}tbl")) is not table:
            continue  # of a table in a cell, whose text is that cell's
        text = " | ".join(_text(cell) for cell in row.iterchildren(f"{_W}tc"))
        if text.strip(" |"):
            rows.append(text)
            characters += len(text)
        if characters > LONGEST_BLOCK:
            yield Block("\n".join(rows))
            rows, characters = [], 0
    if rows:
        yield Block("\n".join(rows))


def _text(element: Any) -> str:
    """The text below an element, as it stands when all changes are accepted, in one line."""
    pieces: list[str] = []
    for node in element.iter(f"{_W}t", *_SPACES):
        if node.tag in _SPACES:
            pieces.append(" ")
        elif node.text and next(node.iterancestors(_FALLBACK), None) is None:
            pieces.append(node.text)
    return " ".join("".join(pieces).split())
