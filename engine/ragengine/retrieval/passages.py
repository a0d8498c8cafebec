"""Passage files, read one passage at a time whatever their size.

Four layouts are read: DPR's TSV (``psgs_w100.tsv``), JSONL, a folder of ``datasets.Dataset.save_to_disk``
(see :mod:`ragengine.retrieval.arrow`), and text and Markdown files (see
:mod:`ragengine.retrieval.splitting`).
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragengine.errors import PassagesError
from ragengine.wording import one_line

TSV_HEADER = ["id", "text", "title"]
# A C long on every platform.  The csv module's default of 128 KiB is less than a long passage; its limit is
# one number for the process, so it is only ever raised.
_CSV_FIELD_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage z: what the retriever finds and the generator reads."""

    id: str
    title: str
    text: str


def read_passages(path: str | Path, first_row: int = 0) -> Iterator[Passage]:
    """Stream the passages of a file or folder, in file order.

    ``path`` is a ``.tsv``, a ``.jsonl``, a ``save_to_disk`` folder, a text or Markdown file or a folder of
    such files.  Where a JSONL or a dataset has no ids, they are row numbers from ``first_row`` on.
    Raises :class:`PassagesError` naming the file and the line (or row), what was found and the remedy.
    """
    path = Path(path)
    kind = passages_kind(path)
    if kind == "tsv":
        return read_tsv(path)
    if kind == "jsonl":
        return read_jsonl(path, first_row)
    if kind == "text":
        from ragengine.retrieval.splitting import read_text

        return read_text(path)
    from ragengine.retrieval.arrow import read_dataset_passages

    return read_dataset_passages(path, first_row)


def passages_kind(path: Path) -> Literal["tsv", "jsonl", "text", "dataset"]:
    """How the passages at ``path`` are read; raises :class:`PassagesError` where there are none."""
    from ragengine.retrieval.splitting import TEXT_SUFFIXES, text_files

    if path.is_dir():
        is_dataset = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
        return "text" if not is_dataset and text_files(path) else "dataset"
    if not path.exists():
        raise PassagesError(f"{path} does not exist; a passage file or folder was expected there.")
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return "tsv"
    if suffix == ".jsonl":
        return "jsonl"
    if suffix in TEXT_SUFFIXES:
        return "text"
    raise PassagesError(
        f"{path} is not a kind of passages that is read; give a .tsv with the header id, text, title, "
        "a .jsonl, a .txt or .md, a folder of such texts, or one written by datasets.Dataset.save_to_disk."
    )


def read_tsv(path: Path) -> Iterator[Passage]:
    r"""Stream DPR's TSV: the header ``id<TAB>text<TAB>title``, then one passage a record.

    Quotes are read as DPR reads them, ``csv.reader(file, delimiter="\t")``: a field that begins with ``"``
    is quoted, may contain tabs and line breaks, and doubles its inner quotes.  Elsewhere a quote is an
    ordinary character.  Unlike DPR's the reader is strict: where a quoted field goes on after its closing
    quote, or never closes, DPR's code loses quotes or swallows the passages that follow, without a word.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _CSV_FIELD_LIMIT))
    records = csv.reader(utf8_lines(path), delimiter="\t", strict=True)
    header_seen = False
    while True:
        line = records.line_num + 1
        try:
            record = next(records, None)
        except csv.Error as reason:
            said = one_line(str(reason).replace("\t", "TAB"))
            raise PassagesError(
                f"{path}, line {line}: not a TSV record ({said}); put a field that begins with a double "
                "quote or holds a line break in double quotes, and double those inside."
            ) from reason
        if record is None:
            break
        if not record:  # an empty line
            continue
        if not header_seen:
            if record != TSV_HEADER:
                raise PassagesError(
                    f"{path}, line {line}: the header is {_shown(record)}; the tab-separated columns "
                    "id, text, title were expected."
                )
            header_seen = True
        elif len(record) != len(TSV_HEADER):
            raise PassagesError(
                f"{path}, line {line}: {len(record)} tab-separated columns instead of 3 (id, text, title); "
                "put a text that contains tabs in double quotes."
            )
        else:
            yield Passage(id=record[0], text=record[1], title=record[2])
    if not header_seen:
        raise PassagesError(f"{path} is empty; the header id, text, title was expected on its first line.")


def read_jsonl(path: Path, first_row: int = 0) -> Iterator[Passage]:
    """Stream a JSONL file of ``{"id", "title", "text"}``; an absent ``id`` is the row number."""
    row = first_row
    for number, line in enumerate(utf8_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise PassagesError(f"{where}: not JSON ({reason}); write one object a line.") from reason
        if not isinstance(record, dict):
            raise PassagesError(f"{where}: found {type(record).__name__}; write one object a line.")
        yield checked_passage({"id": str(row), **record}, where)
        row += 1


def checked_passage(record: dict[str, object], where: str) -> Passage:
    """Make a passage of a record that must have three strings; ``where`` begins the error message."""
    values = []
    for name in ("id", "title", "text"):
        value = record.get(name)
        if not isinstance(value, str):
            found = type(value).__name__ if name in record else "nothing"
            raise PassagesError(f"{where}: {name!r} must be a string, found {found}; write it as a string.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as reason:
            raise PassagesError(
                f"{where}: {name!r} has half a surrogate pair ({value[reason.start]!a}) at character "
                f"{reason.start}, which no UTF-8 text can hold; remove it or write the whole pair."
            ) from reason
        values.append(value)
    return Passage(*values)


def utf8_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; a fault of the encoding is reported with its line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as reason:
                    raise PassagesError(
                        f"{path}, line {number}: byte {line[reason.start]:#04x} at position {reason.start} "
                        "is not UTF-8; convert the file to UTF-8."
                    ) from reason
    except OSError as reason:
        raise PassagesError(f"{path} cannot be read: {reason.strerror or reason}.") from reason


def _shown(record: list[str]) -> str:
    text = repr([field[:100] for field in record[:10]])  # of a field that may be the whole file
    return text if len(text) <= 100 else text[:100] + "..."
