"""Passage files, read one passage at a time whatever their size.

Four layouts are read: DPR's TSV (``psgs_w100.tsv``), JSONL, a folder of ``datasets.Dataset.save_to_disk``
(see :mod:`ragengine.corpus.hf_dataset`), and text and Markdown files (see
:mod:`ragengine.corpus.text_files`).
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ragengine.corpus.passage import Passage, checked_passage, short_record, utf8_lines
from ragengine.errors import PassagesError
from ragengine.messages import one_line

TSV_HEADER = ["id", "text", "title"]
# A C long on every platform.  The csv module's default of 128 KiB is less than a long passage; its limit is
# one number for the process, so it is only ever raised.
_CSV_FIELD_LIMIT = 2**31 - 1


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
        from ragengine.corpus.text_files import read_text

        return read_text(path)
    from ragengine.corpus.hf_dataset import read_dataset_passages

    return read_dataset_passages(path, first_row)


def passages_kind(path: Path) -> Literal["tsv", "jsonl", "text", "dataset"]:
    """How the passages at ``path`` are read; raises :class:`PassagesError` where there are none."""
    from ragengine.corpus.text_files import TEXT_SUFFIXES, text_files

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
                    f"{path}, line {line}: the header is {short_record(record)}; the tab-separated columns "
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
