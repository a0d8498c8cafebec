"""A program that writes a file of answers while its calls to the C library are recorded, or it is killed.

    LD_PRELOAD=file_calls.so python -m tests.batch_inference.power_loss WORK answers|order|lost [OLD [SITE]]

``answers`` records :func:`answer_file`, ``order`` the lines alone.  ``lost`` kills the writing of the lines
before each call, then takes back what no sync had brought to disk by then, as a power failure may: the file
is cut there or somewhere behind, or has zeros from there.  Another run must then write what an undisturbed
one writes, and answer no question again whose batch was on disk.  With OLD something else is at the output
before.  SITE is the number of a sync of the source to leave out.  Prints JSON: the calls, and a sentence for
each broken promise.
"""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ragengine import answer_file
from ragengine.batch_inference import output as module
from ragengine.batch_inference.output import resumable_output
from ragengine.batch_inference.questions import FileQuestion
from tests.robustness.durability import broken_promises
from tests.robustness.file_calls import KILL, Call, fail_at, recorded
from tests.robustness.forks import in_fork
from tests.robustness.unsynced import Site, sync_sites, take_out
from tests.support.paths import WORLDFACTS

COUNT, BATCH = 7, 2
QUESTIONS = [FileQuestion(line, f"q{line}", f"Is it {line}?") for line in range(1, COUNT + 1)]
RECORDS = [{"question": one.question, "answer": "yes" * one.line} for one in QUESTIONS]
OLD = b'{"answer": "of somebody else"}\n'


def sites() -> list[Site]:
    """The syncs of a file of answers in the source."""
    return [site for site in sync_sites() if site.module == module.__name__]


def write_lines(output: Path) -> int:
    """Write all lines that are not there yet; how many were."""
    settings, force = {"model": "one"}, output.exists() and output.read_bytes() == OLD
    with resumable_output(output, QUESTIONS, settings, batch_size=BATCH, force=force) as written:
        resumed = written.done
        while not written.finished:
            written.add(RECORDS[written.done : written.done + BATCH])
    return resumed


def write_answers(output: Path) -> None:
    questions = output.with_name("questions.txt")
    answer_file(
        WORLDFACTS / "bundle", WORLDFACTS / "index", questions, output,
        batch_size=2, n_docs=2, max_length=8, num_beams=1, threads=1, verify="size",
    )  # fmt: skip


class Loss:
    """What power failures leave of the output, and what the next run makes of it."""

    def __init__(self, work: Path, old: bytes | None) -> None:
        self.work, self.old = work, old
        self.output = work / "answers.jsonl"
        self.part = work / f".{self.output.name}.writing" / "answers.part"
        self.faults: list[str] = []
        self.reset()
        self.calls = [Call(*call) for call in in_fork(lambda: self._recorded(write_lines)).value]
        self.whole = self.output.read_bytes()
        lengths = [len(line) for line in self.whole.splitlines(keepends=True)]
        self.ends = [0, *itertools.accumulate(lengths)]  # of the lines, in bytes

    def _recorded(self, write: Callable[[Path], Any]) -> list[Call]:
        with recorded(self.work) as calls:
            write(self.output)
        return calls

    def reset(self) -> None:
        for path in sorted(self.work.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if self.old is not None:
            self.output.write_bytes(self.old)

    def crash(self) -> None:
        """Fail at every call in every way."""
        sizes: list[int] = []
        for number in range(len(self.calls) + 1):
            for way in ("nothing", "cut", "cut later", "zeros"):
                self.reset()
                in_fork(lambda number=number: self._killed(number))
                file = self.part if self.part.exists() else self.output
                if way == "nothing":
                    sizes.append(file.stat().st_size if file.exists() else 0)
                durable = self._durable(number, sizes)
                if file.exists() and not (file == self.output and file.read_bytes() == self.old):
                    self._lose(file, durable, way, Random(number))
                self._check(f"{way} at {number}", durable)

    def _killed(self, number: int) -> None:
        fail_at(self.work, number, KILL)
        write_lines(self.output)

    def _durable(self, number: int, sizes: list[int]) -> int:
        """How many bytes of the lines were on disk before call ``number``."""
        synced = [at for at, call in enumerate(self.calls[:number]) if call == Call("sync", str(self.part))]
        return sizes[synced[-1] + 1] if synced else 0

    def _lose(self, file: Path, durable: int, way: str, random: Random) -> None:
        content = file.read_bytes()
        kept = {"nothing": len(content), "cut later": random.randint(durable, len(content))}
        end = kept.get(way, durable)
        file.write_bytes(content[:end] + (bytes(len(content) - end) if way == "zeros" else b""))

    def _check(self, where: str, durable: int) -> None:
        found = self.output.read_bytes() if self.output.exists() else None
        if found not in (self.old, self.whole):
            self.faults.append(f"{where}: the output is half a file")
        again = in_fork(lambda: write_lines(self.output))
        left = [path.name for path in self.work.iterdir()]
        if again.value is None or self.output.read_bytes() != self.whole or left != [self.output.name]:
            self.faults.append(f"{where}: the next run does not write the file: {again}, {left}")
        elif self.ends[again.value] < max(end for end in self.ends[::BATCH] if end <= durable):
            self.faults.append(f"{where}: {again.value} questions are kept, {durable} bytes were on disk")


def late(calls: list[Call], part: str, *, writes: bool) -> list[str]:
    """A sentence for each batch that is synced before the names of its file and folder are.

    With ``writes`` every batch is a single write, and one that is not synced before the next has a sentence.
    """
    names: set[str] = set()  # folders with entries that are not on disk
    broken, waiting = [], False
    for name, path, _ in calls:
        if name in ("create", "mkdir"):
            names.add(str(Path(path).parent))
        if writes and (name, path) == ("write", part):
            broken += ["lines are written while others are not on disk"] if waiting else []
            waiting = True
        if name == "sync":
            waiting = waiting and path != part
            names.discard(path)
            above = {str(folder) for folder in Path(part).parents}
            if path == part and names & above:
                broken.append(f"the lines are synced before the names in {sorted(names & above)}")
    return broken


def main() -> None:
    work, how, *more = sys.argv[1:]
    module._SYNC_SECONDS = -1.0  # after every batch
    if len(more) > 1:
        take_out(sites()[int(more[1])])
    folder = Path(work)
    if how == "answers":
        with recorded(folder) as calls:
            write_answers(folder / "answers.jsonl")
        found, faults = calls, broken_promises(calls)
    else:
        loss = Loss(folder, OLD if more and more[0] == "old" else None)
        found, faults = loss.calls, broken_promises(loss.calls)
        if how == "lost":
            loss.crash()
            faults = loss.faults
    part = str(folder / ".answers.jsonl.writing" / "answers.part")
    if how != "lost":
        faults += late(found, part, writes=how == "order")
    print(json.dumps({"steps": [call.name for call in found], "faults": faults}))


if __name__ == "__main__":
    main()
