"""Files with one passage a record: DPR's TSV (``psgs_w100.tsv``) and JSONL."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from ragengine.corpus.passage import Passage, checked_passage, utf8_lines
from ragengine.errors import PassagesError
from ragengine.messages import one_line

TSV_HEADER = ["id", "text", "title"]
# A C long on every platform.  The csv module's default of 128 KiB is less than a long passage; its limit is
# one number for the process, so it is only ever raised.
_CSV_FIELD_LIMIT = 2**31 - 1


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
                    f"{path}, line {line}: the header is {_short_record(record)}; the tab-separated columns "
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


def _short_record(record: list[str]) -> str:
    text = repr([field[:100] for field in record[:10]])  # a field may be the whole file
    return text if len(text) <= 100 else text[:100] + "..."
