"""Markdown as the parts of a document: front matter, headings, code blocks and tables.

It is read line by line, in time that grows with the file and not faster: what is looked at again is one line.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

from ragengine.corpus.splitting import (
    LONGEST_BLOCK,
    LONGEST_HEADING,
    Block,
    Fields,
    Heading,
    Part,
    Text,
    Title,
)

_HEADING: Final = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE: Final = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_FENCE: Final = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_NO_TITLE: Final = re.compile(r"[ \t]*(?:[-*+>|]|\d{1,9}[.)]|\t| {4})")  # a list, a quote, a table, code
_FRONT_MATTER_LINES: Final = 1000
_FIELD: Final = re.compile(r"([A-Za-z_][\w.-]{0,99})[ \t]*:(?:[ \t]+(.*))?$")
_LONGEST_FIELD: Final = 10_000


def read_markdown(lines: Iterable[str]) -> Iterator[Part]:
    """Stream the parts of a Markdown text from its lines, which may end in LF, CR LF or CR."""
    rest = _bare_lines(lines)
    fields, rest = _front_matter(rest)
    if title := fields.pop("title", "")[:LONGEST_HEADING]:
        yield Title(title)
    if fields:
        yield Fields(fields)
    yield from _Reader().parts(rest)


def _bare_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if "\r" not in line:
            yield line.rstrip("\n")
        else:
            yield from line.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")


def _front_matter(lines: Iterator[str]) -> tuple[dict[str, str], Iterator[str]]:
    """The fields between ``---`` and ``---`` on the first lines, and the lines that follow.

    Only what needs no YAML is read, ``name: value`` with or without quotes: a reader of all of it would build
    whatever a stranger's file asks for.
    """
    first = next(lines, None)
    if first is None:
        return {}, lines
    if first.rstrip() != "---":
        return {}, chain([first], lines)
    held: list[str] = []
    for line in islice(lines, _FRONT_MATTER_LINES):
        if line.rstrip() in ("---", "..."):
            return _fields(held), lines
        held.append(line)
        if len(line) > _LONGEST_FIELD:
            break
    return {}, chain([first], held, lines)  # a line across the page, or no end


def _fields(lines: Iterable[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        if found := _FIELD.match(line):
            value = _scalar(found[2] or "")
            if value and value[0] not in "|>&*!{":  # YAML's own: blocks, anchors, tags, maps
                fields.setdefault(found[1], value)
    return fields


def _scalar(text: str) -> str:
    text = text.strip()
    for quote in ('"', "'"):
        if text.startswith(quote) and (end := text.find(quote, 1)) > 0:
            return text[1:end]
    return text.partition(" #")[0].rstrip()


class _Reader:
    """Where in a text the reader is: in a code block, in a table, or behind a line that may be a heading."""

    def __init__(self) -> None:
        self._fence = ""  # what opened the code block
        self._block: list[str] = []  # its lines, or those of a table
        self._block_characters = 0
        self._held: str | None = None  # the last line, while the next one may make it a heading or a table
        self._begins = False  # whether that line begins a paragraph

    def parts(self, lines: Iterator[str]) -> Iterator[Part]:
        for line in lines:
            yield from self._line(line)
        yield from self._end_block()
        yield from self._end_line()

    def _line(self, line: str) -> Iterator[Part]:
        if self._fence:
            yield from self._add_to_block(line)
            if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                yield from self._end_block()
            return
        if self._block:
            if "|" in line:
                yield from self._add_to_block(line)
                return
            yield from self._end_block()
        held = self._held
        if held is not None:
            if self._begins and _UNDERLINE.match(line) and not _NO_TITLE.match(held):
                self._held = None
                yield from _heading(held, 1 if line.strip()[0] == "=" else 2)
                return
            if "|" in held and _is_delimiter_row(line):
                self._held = None
                self._block = [held]
                yield from self._add_to_block(line)
                return
            yield from self._end_line()
        if opened := _FENCE.match(line):
            self._fence = opened[1]
            yield from self._add_to_block(line)
        elif len(line) <= LONGEST_HEADING and (found := _HEADING.match(line)) and found[2]:
            yield Heading(found[2], len(found[1]))
        elif line and not line.isspace():
            self._held, self._begins = line, held is None

    def _add_to_block(self, line: str) -> Iterator[Part]:
        self._block.append(line)
        self._block_characters += len(line)
        if self._block_characters >= LONGEST_BLOCK:
            fence = self._fence
            yield from self._end_block()
            self._fence = fence

    def _end_block(self) -> Iterator[Part]:
        if self._block:
            yield Block("\n".join(self._block))
        self._block, self._block_characters, self._fence = [], 0, ""

    def _end_line(self) -> Iterator[Part]:
        if self._held is not None:
            yield Text(self._held)
            self._held = None


def _heading(line: str, level: int) -> Iterator[Part]:
    """A line that the next one underlines."""
    text = line.strip()
    yield Heading(text, level) if len(text) <= LONGEST_HEADING else Text(text)


def _is_delimiter_row(line: str) -> bool:
    """Whether this is the line below the head of a table: ``|---|:--:|``."""
    return "-" in line and "|" in line and not line.strip("|-: \t")
