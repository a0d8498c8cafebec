r"""Tables of text with one passage a row: TSV (DPR's ``psgs_w100.tsv``, BEIR's exports) and CSV.

Quotes are read as DPR reads them, ``csv.reader(file, delimiter="\t")``: a field that begins with ``"`` is
quoted, may contain separators and line breaks, and doubles its inner quotes.  Elsewhere a quote is an
ordinary character.  Unlike DPR's the reader is strict: where a quoted field goes on after its closing quote,
or never closes, DPR's code loses quotes or swallows the passages that follow, without a word.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Columns, Passage
from ragengine.corpus.splitting import split_record
from ragengine.errors import PassagesError
from ragengine.messages import log, one_line
from ragengine.storage.foreign_files import LONGEST_LINE, check_line_ends, utf8_lines

_DPR_HEADER: Final = ["id", "text", "title"]
_KNOWN: Final = frozenset({*_DPR_HEADER, "_id"})
_SEPARATORS: Final = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
# The csv module's default of 128 KiB is less than a long passage; its limit is one number for the process, so
# it is only ever raised.
_CSV_FIELD_LIMIT: Final = LONGEST_LINE


@dataclass(frozen=True)
class Table:
    """A file of rows separated by ``separator``, found in the folder ``within`` or named by the user."""

    path: Path
    within: Path | None
    separator: str
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the passages.

        The first row names the columns, in any order; where it is there again, since files were joined, it is
        left out.  Without one, a table of two columns holds titles and whole texts, which are split, as RAG's
        ``use_own_knowledge_dataset.py`` does.
        """
        rows = self._rows()
        first = next(rows, None)
        if first is None:
            raise PassagesError(
                f"{self.path} is empty; the header id, text, title was expected on its first line."
            )
        columns = self._columns(*first)
        if columns is None:
            yield from self._titles_and_texts(first, rows)
            return
        header = _names(first[1])
        for line, row in rows:
            if len(row) != len(header):
                raise self._wrong_length(line, row, header)
            if row[0].removeprefix("\ufeff").strip(' "') == header[0] and _names(row) == header:
                continue
            passage = columns.passage(_record(header, row, columns), f"{self.path}, line {line}")
            yield from split_record(passage, self.options)

    def missing(self) -> str | None:
        """What the header lacks, for a file that nobody named: a table of something else than passages."""
        first = next(self._rows(), None)
        if first is None:
            return "it is empty"
        try:
            Columns.among(_names(first[1]), self.options)
        except ValueError as reason:
            return str(reason).partition(";")[0]
        return None

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows with the numbers of their first lines, without the empty ones."""
        csv.field_size_limit(max(csv.field_size_limit(), _CSV_FIELD_LIMIT))
        lines = _Lines(self.path, self.within)
        rows = csv.reader(lines, delimiter=self.separator, strict=True)
        while True:
            line = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as reason:
                if line == 1:
                    check_line_ends(self.path, lines.last, PassagesError)
                said = one_line(str(reason).replace("\t", "TAB"))
                raise PassagesError(
                    f"{self.path}, line {line}: not a {self._kind} record ({said}); put a field that begins "
                    "with a double quote or holds a line break in double quotes, and double those inside."
                ) from reason
            if row is None:
                return
            if row:
                yield line, row

    def _columns(self, line: int, row: list[str]) -> Columns | None:
        """The columns that a first row names; None where it is a title and a text."""
        try:
            return Columns.among(_names(row), self.options)
        except ValueError as reason:
            names = _names(row)
            if (
                len(row) == 2
                and not self.options.names_columns
                and not _KNOWN & {name.lower() for name in names}
            ):
                return None
            remedy = f"it has {reason}"
            if len(row) == 1 and (other := self._other_separator(row[0])):
                remedy = f"the columns seem to be separated by {other}, not by {_SEPARATORS[self.separator]}s"
                remedy += "; save it with those, or name it .tsv for tabs and .csv for commas"
            raise PassagesError(
                f"{self.path}, line {line}: the header is {_short_row(row)}; {remedy}."
            ) from None

    def _other_separator(self, line: str) -> str | None:
        found = [name for sign, name in _SEPARATORS.items() if sign != self.separator and sign in line]
        return f"{found[0]}s" if found else None

    def _titles_and_texts(
        self, first: tuple[int, list[str]], rows: Iterator[tuple[int, list[str]]]
    ) -> Iterator[Passage]:
        columns, header = Columns(None, "title", "text"), ["title", "text"]
        log.warning("%s has no header: its two columns are read as title and text.", self.path)
        for line, row in chain([first], rows):
            if len(row) != 2:
                raise self._wrong_length(line, row, header)
            passage = columns.passage(dict(zip(header, row, strict=True)), f"{self.path}, line {line}")
            yield from split_record(passage, self.options, always=True)

    def _wrong_length(self, line: int, row: list[str], header: list[str]) -> PassagesError:
        names, separator = one_line(", ".join(header)), _SEPARATORS[self.separator]
        if len(row) > len(header):
            remedy = f"put a field that contains {separator}s in double quotes"
        else:
            remedy = (
                f"write the fields that are missing, an empty one too, with the {separator}s between them, "
                "and put a field that holds a line break in double quotes"
            )
        return PassagesError(
            f"{self.path}, line {line}: {len(row)} {separator}-separated columns instead of {len(header)} "
            f"({names}); {remedy}."
        )

    @property
    def _kind(self) -> str:
        return "TSV" if self.separator == "\t" else "CSV"


class _Lines:
    """The lines of a file, with the last one that was read."""

    def __init__(self, path: Path, within: Path | None) -> None:
        self._lines = utf8_lines(path, PassagesError, within)
        self.last = ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.last = next(self._lines)
        return self.last


def _record(header: list[str], row: list[str], columns: Columns) -> dict[str, object]:
    """A row by the names of its columns; an empty field is none, unless it is of the passage itself."""
    kept = columns.names
    return {
        name: value
        for name, value in zip(header, row, strict=True)
        if name in kept or (name and value.strip())
    }


def is_header(row: list[str]) -> bool:
    """Whether these fields are DPR's header; its first one may still have a byte order mark and quotes."""
    return _names(row) == _DPR_HEADER


def _names(row: list[str]) -> list[str]:
    """The names of a header; where files were joined it has a byte order mark, and quotes behind that."""
    first, *others = row
    return [first.removeprefix("\ufeff").strip(' "'), *(name.strip(" ") for name in others)]


def _short_row(row: list[str]) -> str:
    text = repr([field[:100] for field in row[:10]])  # a field may be the whole file
    return text if len(text) <= 100 else text[:100] + "..."
