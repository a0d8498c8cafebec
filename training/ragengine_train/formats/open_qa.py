"""Formats of a JSON object a line: NQ-open and KILT."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import json_lines
from ragengine_train.formats.record import Record, Records, record_or_dropped, required, unique


def read_nq_open(path: Path) -> Records:
    """`{"question", "answer": [...]}`, NQ-open's lines."""
    for where, entry in json_objects(path):
        answers = unique(required(entry, "answer", where, list), where)
        yield record_or_dropped(Record(where, required(entry, "question", where).strip(), answers))


def read_kilt(path: Path) -> Records:
    """`{"input", "output": [{"answer", "provenance": [{"title"}]}]}`, KILT's lines."""
    for where, entry in json_objects(path):
        outputs = [one for one in entry.get("output") or [] if isinstance(one, dict)]
        pages = [page for one in outputs for page in one.get("provenance") or [] if isinstance(page, dict)]
        yield record_or_dropped(
            Record(
                where,
                required(entry, "input", where).strip(),
                unique((one["answer"] for one in outputs if one.get("answer") is not None), where),
                titles=unique((page["title"] for page in pages if page.get("title") is not None), where),
            )
        )


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its place.

    Raises:
        PassagesError: it cannot be read, or a line is no object.
    """
    for number, line in json_lines(path, PassagesError):
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise PassagesError(f"{where}: not JSON ({reason}); write one object a line.") from reason
        if not isinstance(entry, dict):
            raise PassagesError(f"{where}: found {type(entry).__name__}; write one object a line.")
        yield where, entry
