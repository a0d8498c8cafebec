"""Files with one passage a record: DPR's TSV (``psgs_w100.tsv``) and JSONL."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from ragengine.corpus.passage import Passage, checked_passage, utf8_lines
from ragengine.errors import PassagesError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import LONGEST_LINE, json_lines

TSV_HEADER = ["id", "text", "title"]
# The csv module's default of 128 KiB is less than a long passage; its limit is one number for the process, so
# it is only ever raised.
_CSV_FIELD_LIMIT = LONGEST_LINE


def read_tsv(path: Path) -> Iterator[Passage]:
    r"""Stream DPR's TSV: the header ``id<TAB>text<TAB>title``, then one passage a record.

    Quotes are read as DPR reads them, ``csv.reader(file, delimiter="\t")``: a field that begins with ``"``
    is quoted, may contain tabs and line breaks, and doubles its inner quotes.  Elsewhere a quote is an
    ordinary character.  Unlike DPR's the reader is strict: where a quoted field goes on after its closing
    quote, or never closes, DPR's code loses quotes or swallows the passages that follow, without a word.  And
    a header between passages, where several files were joined, is left out; in DPR's code it is a passage.
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
        if is_header(record):  # it is there again where files were joined
            header_seen = True
        elif not header_seen:
            raise PassagesError(
                f"{path}, line {line}: the header is {_short_record(record)}; the tab-separated columns "
                "id, text, title were expected."
            )
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
    """Stream a JSONL file of ``{"id", "title", "text"}``; an absent ``id`` (or ``_id``) is the row."""
    for row, (number, line) in enumerate(json_lines(path, PassagesError), start=first_row):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise PassagesError(f"{where}: not JSON ({reason}); write one object a line.") from reason
        if not isinstance(record, dict):
            raise PassagesError(f"{where}: found {type(record).__name__}; write one object a line.")
        if "_id" in record and "id" not in record:  # BEIR's name of it
            record["id"] = record["_id"]
        yield checked_passage(record, where, row)


def is_header(record: list[str]) -> bool:
    """Whether these fields are the header; its first one may still have a byte order mark and quotes."""
    first, *others = record
    return [first.removeprefix("\ufeff").strip('"'), *others] == TSV_HEADER


def _short_record(record: list[str]) -> str:
    text = repr([field[:100] for field in record[:10]])  # a field may be the whole file
    return text if len(text) <= 100 else text[:100] + "..."
