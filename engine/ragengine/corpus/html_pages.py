"""HTML as the parts of a document: title, headings, running text, preformatted text and tables.

lxml parses it piece by piece and calls back; no tree is built, so that memory does not grow with the page.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from io import BufferedReader
from typing import Any, Final

from ragengine.corpus.splitting import LONGEST_BLOCK, LONGEST_HEADING, Block, Heading, Part, Text, Title
from ragengine.installation import missing_package
from ragengine.messages import one_line, short_repr

_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_SKIPPED: Final = frozenset(
    ("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "select")
)
_INLINE: Final = frozenset(
    (
        *(
            "a",
            "abbr",
            "acronym",
            "b",
            "bdi",
            "bdo",
            "big",
            "cite",
            "code",
            "data",
            "del",
            "dfn",
            "em",
            "font",
        ),
        *("i", "ins", "kbd", "label", "mark", "nobr", "q", "rp", "rt", "ruby", "s", "samp", "small", "span"),
        *("strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    )
)
_CHUNK: Final = 1 << 16
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.I)
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NAMED_OTHERWISE: Final = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
"""What browsers read where a page declares these (the WHATWG's encoding standard)."""
_CHARSETS: Final = re.compile(
    r"utf-8|utf-8-sig|utf-16|cp125\d|cp866|cp874|iso8859-\d{1,2}|koi8-[ru]|mac-roman|gb18030|big5|euc_jp|"
    r"shift_jis|iso2022_jp|euc_kr"
)


def read_html(file: BufferedReader) -> Iterator[Part]:
    """Stream the parts of a page.

    Raises:
        ValueError: it is not in the encoding that it declares, UTF-8 if none.
        DependencyError: lxml is not installed.
    """
    page = _Page()
    parser = _parser(page)
    parser.feed(b"<!doctype html>")  # an empty page is no error
    for text in _decoded(file):
        parser.feed(text.encode("utf-8"))
        while page.parts:
            yield page.parts.popleft()
    parser.close()
    page.finish()
    yield from page.parts


def _parser(page: "_Page") -> Any:
    try:
        from lxml import etree
    except ModuleNotFoundError as reason:
        raise missing_package("HTML pages need", reason, "documents") from reason
    return etree.HTMLParser(target=page, encoding="utf-8", no_network=True)


def _decoded(file: BufferedReader) -> Iterator[str]:
    """The text of a page, in pieces."""
    piece = file.read(_CHUNK)
    name = _encoding(piece)
    decoder = codecs.getincrementaldecoder(name)()
    done = 0
    while piece:
        try:
            # The parser takes NUL, and halves of surrogate pairs that old encodings may give, as an end.
            yield decoder.decode(piece).replace("\0", " ")
        except UnicodeDecodeError as reason:
            raise ValueError(
                f"byte {reason.object[reason.start]:#04x} near position {done + reason.start} is not {name}, "
                "which the page declares or is taken to be; convert it to UTF-8 and declare that"
            ) from reason
        done += len(piece)
        piece = file.read(_CHUNK)
    if decoder.getstate()[0]:
        raise ValueError(f"it ends within a character of {name}; it may have been cut off, copy it again")


def _encoding(start: bytes) -> str:
    """Python's name of the encoding that the first bytes of a page declare."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    declared = _CHARSET.search(start[:4096])
    label = "utf-8" if declared is None else declared[1].decode("ascii")
    try:
        name = codecs.lookup(label).name
    except LookupError:
        name = ""
    name = _NAMED_OTHERWISE.get(name, name)
    if name == "utf-16":  # by the standard: what could be read as ASCII is none
        name = "utf-8"
    if not _CHARSETS.fullmatch(name):
        raise ValueError(
            f"it declares the encoding {short_repr(one_line(label))}; convert it to UTF-8 and declare that"
        )
    return name


class _Page:
    """What the parser calls; ``parts`` are those that are whole."""

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self._titled = False
        self._skipped = 0  # how many elements whose text is no text are open
        self._texts: list[str] = []  # of the element that is read
        self._characters = 0
        self._level = 0  # of the heading that is read
        self._in_title = self._in_pre = False
        self._tables: list[bool] = []  # of each table that is open: whether it is one of data
        self._rows: list[str] = []
        self._cells: list[str] = []
        self._table_characters = 0

    def start(self, tag: str, attributes: object) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        elif self._skipped or tag in _INLINE:
            return
        elif tag == "title":
            self._flush()
            self._in_title = True
        elif tag == "br":
            self.data("\n")
        elif tag == "table":
            self._leave_data_table()
            self._flush()
            self._tables.append(True)
        elif tag in _HEADINGS:
            self._leave_data_table()
            self._flush()
            self._level = _HEADINGS[tag]
        elif self._in_data_table:
            self.data("\n")
        elif tag == "pre":
            self._flush()
            self._in_pre = True
        elif not self._in_pre and not self._level:
            self._flush()

    def end(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif self._skipped or tag in _INLINE:
            return
        elif tag == "title":
            self._end_title()
        elif tag == "table":
            if self._in_data_table:
                self._end_table()
            self._flush()
            del self._tables[-1:]
        elif self._in_data_table:
            if tag in ("td", "th"):
                self._end_cell()
            elif tag in ("tr", "caption"):
                self._end_row()
            else:
                self.data("\n")
        elif tag in _HEADINGS:
            self._end_heading()
        elif tag == "pre":
            self._flush()
            self._in_pre = False
        elif not self._in_pre and not self._level:
            self._flush()

    def data(self, text: str) -> None:
        if self._skipped:
            return
        self._texts.append(text)
        self._characters += len(text)
        at_word_end = text[-1:].isspace() or self._characters > 64 * LONGEST_BLOCK
        if self._characters > LONGEST_BLOCK and at_word_end:
            self._overflow()

    def comment(self, text: str) -> None:
        """Nothing: it is not shown."""

    def close(self) -> None:
        """Nothing: :meth:`finish` is called behind the last piece."""

    def finish(self) -> None:
        """Take what an element that never ended has."""
        if self._in_title:
            self._end_title()
        if self._level:
            self._end_heading()
        if self._in_data_table:
            self._end_table()
        self._flush()

    @property
    def _in_data_table(self) -> bool:
        return bool(self._tables) and self._tables[-1]

    def _leave_data_table(self) -> None:
        """A table with another one or a heading in it is there for the layout: its text is running text."""
        if self._in_data_table:
            self._end_row()
            self.parts.extend(Text(row) for row in self._rows)
            self._rows, self._table_characters = [], 0
            self._tables[-1] = False

    def _end_cell(self) -> None:
        cell = self._take()
        self._cells.append(cell)
        self._table_characters += len(cell) + 3
        if self._table_characters > LONGEST_BLOCK:
            self._end_table()

    def _end_row(self) -> None:
        if self._texts:
            self._end_cell()
        if any(self._cells):
            self._rows.append(" | ".join(self._cells))
        self._cells = []

    def _end_table(self) -> None:
        self._end_row()
        if self._rows:
            self.parts.append(Block("\n".join(self._rows)))
        self._rows, self._table_characters = [], 0

    def _end_title(self) -> None:
        text, self._in_title = self._take(), False
        if text and len(text) <= LONGEST_HEADING and not self._titled:
            self._titled = True
            self.parts.append(Title(text))

    def _end_heading(self) -> None:
        text, level = self._take(), self._level
        self._level = 0
        if text:
            self.parts.append(Heading(text, level) if len(text) <= LONGEST_HEADING else Text(text))

    def _overflow(self) -> None:
        """Give what has been read of an element that is very long; what follows is read as another."""
        if self._in_data_table:
            self._end_table()
        elif self._in_title or self._level:
            self._in_title, self._level = False, 0
            self._flush()
        else:
            self._flush()

    def _flush(self) -> None:
        if self._in_pre:
            text = "".join(self._texts).strip("\n")
            self._texts, self._characters = [], 0
            if text and not text.isspace():
                self.parts.append(Block(text))
        elif text := self._take():
            self.parts.append(Text(text))

    def _take(self) -> str:
        text = " ".join("".join(self._texts).split())
        self._texts, self._characters = [], 0
        return text
