"""Questions of other projects to the JSONL of training and evaluation; what was dropped is reported."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from ragengine.errors import PassagesError
from ragengine.evaluation.questions import parse_question
from ragengine.storage.atomic import output_file
from ragengine_train.formats import Context, Dropped, FormatName, Record, read_records

Place: TypeAlias = Callable[[Context], str | None]
"""The id by which a line names a context; None where the line contains it."""


@dataclass(frozen=True)
class Counted:
    """How many entries one reason is about, and where the first of them is."""

    count: int
    first: str


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion has read and written.

    source    the file that was read
    target    the JSONL file
    format    the format of the source
    written   the lines of the target
    dropped   by reason: the entries that are not in it
    noted     by reason: the lines that hold less than their entry, or lack what some training needs
    passages  the passages that were written, where that was asked for
    """

    source: Path
    target: Path
    format: FormatName
    written: int
    dropped: dict[str, Counted]
    noted: dict[str, Counted]
    passages: int = 0

    def lines(self) -> Iterator[str]:
        """The report as lines of text."""
        total = self.written + sum(one.count for one in self.dropped.values())
        yield f"{self.target}: {self.written} of {total} entries of {self.source} ({self.format})"
        if self.passages:
            yield f"{self.passages} passages written"
        for title, reasons in (("dropped", self.dropped), ("kept", self.noted)):
            for reason, one in reasons.items():
                yield f"{one.count} {title}: {reason}; the first is {one.first}"


class _Tally:
    """Counts by reason, with the first place of each."""

    def __init__(self) -> None:
        self.found: dict[str, Counted] = {}

    def add(self, reason: str, where: str) -> None:
        known = self.found.get(reason, Counted(0, where))
        self.found[reason] = Counted(known.count + 1, known.first)


def convert_questions(
    source: str | Path,
    target: str | Path,
    *,
    format: FormatName | None = None,
    split: str = "train",
    answers: str | Path | None = None,
    titles: str | Path | None = None,
    contexts: Literal["inline", "ids"] = "inline",
    passages: str | Path | None = None,
) -> ConvertReport:
    """Write the questions of another project as JSONL, which is what `ragengine data convert` does.

    Args:
        source: a file, or a folder with `SPLIT.source` and `SPLIT.target`, or of BEIR.
        target: the JSONL file to write.
        format: one of :data:`ragengine_train.formats.FORMATS`; by default it is found from names and content.
        split: the part of a folder that is read.
        answers: a file with one answer a line for the questions of ``source`` (`eval_rag.py`'s ``ans``).
        titles: a file with the titles of the right pages, between tabs, a line (its gold data of retrieval).
        contexts: ``inline`` puts passages that entries contain into the lines; ``ids`` puts the ids that the
            source gives them, which are those of a passages file that is at hand.
        passages: write these passages to this JSONL file, and their ids there into the lines.

    Returns:
        What was written, and what was dropped and why.

    Raises:
        PassagesError: the source cannot be read, or nothing in it can be used.
        InputError: the target cannot be written.
    """
    found, records = read_records(
        Path(source), format, split=split, answers=_path(answers), titles=_path(titles)
    )
    with contextlib.ExitStack() as files:
        place: Place = _own_id if contexts == "ids" else _inline
        writer = None
        if passages is not None:
            place = writer = _PassageWriter(files.enter_context(output_file(passages)))
        report = write_questions(records, Path(source), Path(target), found, place)
    count = 0 if writer is None else writer.count
    return ConvertReport(
        report.source, report.target, found, report.written, report.dropped, report.noted, count
    )


def write_questions(
    records: Iterable[Record | Dropped], source: Path, target: Path, name: FormatName, place: Place
) -> ConvertReport:
    """Write records as JSONL, their contexts as ``place`` says; raises as :func:`convert_questions`."""
    dropped, noted, written = _Tally(), _Tally(), 0
    with output_file(target, parents=True) as file:
        for record in records:
            if isinstance(record, Dropped):
                dropped.add(record.reason, record.where)
                continue
            entry = _entry(record, place, noted)
            line = json.dumps(entry, ensure_ascii=False)
            try:
                encoded = line.encode()
            except UnicodeEncodeError:
                dropped.add("half a surrogate pair, which no UTF-8 text can hold", record.where)
                continue
            parse_question(line, record.where)  # as whoever reads the file will
            file.write(encoded + b"\n")
            written += 1
        if not written:
            reasons = "; ".join(f"{one.count} with {reason}" for reason, one in dropped.found.items())
            raise PassagesError(f"{source} has no question that can be used ({reasons or 'it is empty'}).")
    return ConvertReport(source, target, name, written, dropped.found, noted.found)


def _entry(record: Record, place: Place, noted: _Tally) -> dict[str, Any]:
    """The line of a record."""
    entry: dict[str, Any] = {"question": record.question}
    if record.answers is not None:
        entry["answers"] = list(record.answers)
    right = [(one, place(one)) for one in record.positives]
    ids = [*(id for _, id in right if id is not None), *record.passage_ids]
    if right and right[0][1] is None:
        entry["passage"] = _content(right[0][0])
    elif ids:
        entry["passage_id"] = ids[0]
    if ids[1:] or (ids and "passage" in entry):
        entry["passage_ids"] = list(dict.fromkeys(ids))
    if any(id is None for _, id in right[1:]):
        noted.add("with the first of several right passages, since a line contains one", record.where)
    wrong = [(one, place(one)) for one in record.negatives]
    if named := [id for _, id in wrong if id is not None]:
        entry["hard_negative_ids"] = list(dict.fromkeys(named))
    if inline := [_content(one) for one, id in wrong if id is None]:
        entry["hard_negatives"] = inline
    if record.titles:
        entry["titles"] = list(record.titles)
    if not right and not ids:
        noted.add("without a passage, which [joint] alone can train on", record.where)
    return entry


def _content(context: Context) -> dict[str, str]:
    return {"title": context.title, "text": context.text}


def _inline(context: Context) -> None:
    """A :data:`Place` in the line itself."""


def _own_id(context: Context) -> str | None:
    return context.id


class _PassageWriter:
    """A :data:`Place` in a passages file that is written on the way, where equal passages are one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ids: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._ids)

    def __call__(self, context: Context) -> str:
        key = (context.title, context.text)
        if key not in self._ids:
            id = context.id
            if id is None or id in self._taken:
                id = f"context-{len(self._ids)}"
            self._ids[key] = id
            self._taken.add(id)
            line = json.dumps({"id": id, **_content(context)}, ensure_ascii=False)
            self._file.write(line.encode("utf-8", "replace") + b"\n")
        return self._ids[key]


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
