"""Formats of a line an entry: source and target files, `eval_rag.py`'s gold files."""

import ast
import csv
import itertools
from pathlib import Path
from typing import Any

from ragengine.errors import PassagesError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import utf8_lines
from ragengine_train.formats.record import Dropped, Record, Records, record_or_dropped, unique


def read_source_target(path: Path) -> Records:
    """`train.source` with a question a line, and `train.target` beside it with the answer of each."""
    yield from read_lines(path, answers=path.with_suffix(".target"))


def read_lines(path: Path, *, answers: Path | None = None, titles: Path | None = None) -> Records:
    """A question a line, and line by line its answer (`ans`) or its page titles between tabs, or both.

    Raises:
        PassagesError: a file cannot be read, or has more lines than another.
    """
    files = [path, *(file for file in (answers, titles) if file is not None)]
    columns = itertools.zip_longest(*(utf8_lines(file, PassagesError) for file in files))
    for number, lines in enumerate(columns, start=1):
        if None in lines:
            short = files[lines.index(None)]
            raise PassagesError(
                f"{short} has {number - 1} lines, and another of {', '.join(map(str, files))} has more; give "
                "files whose lines belong together."
            )
        where = f"{path}, line {number}"
        question, *others = (line.strip() for line in lines)
        known = None if answers is None else unique(others[:1], where)
        named = () if titles is None else unique(others[-1].split("\t"), where)
        if known is None and not named:
            yield Dropped(where, "no title")
        else:
            yield record_or_dropped(Record(where, question, known, titles=named))


def read_qa(path: Path) -> Records:
    """`eval_rag.py`'s ``qa`` and DPR's `nq-test.csv`: a question, a tab, and a Python list of answers."""
    csv.field_size_limit(max(csv.field_size_limit(), 64 << 20))
    rows = csv.reader(utf8_lines(path, PassagesError), delimiter="\t")  # as pandas reads it
    while True:
        where = f"{path}, line {rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as reason:
            raise PassagesError(f"{where}: not a TSV record ({one_line(str(reason))}); mend it.") from reason
        if row is None:
            return
        if not row:
            continue
        if len(row) < 2:
            raise PassagesError(f"{where}: one column; question, tab and list of answers were expected.")
        yield record_or_dropped(Record(where, row[0].strip(), unique(_answers(row[1], where), where)))


def _answers(text: str, where: str) -> list[Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list | tuple):
        raise PassagesError(f"{where}: {text!a:.60} is no list of answers; write ['one', 'another'].")
    return list(value)
