"""Run cases in child processes, where a signal, a hang or an unexpected exception fails the case.

A module of cases (``tests/robustness/mutated``) has two functions:

    prepare(base)            writes the files that the cases start from, once
    cases(base, exhaustive)  yields the cases, in the same order in every process

One child runs many cases, because importing the libraries takes a second.  It logs the name of a case before
it begins; when the child dies, its parent knows which case did it and continues after it with a new child.

    python -m tests.robustness.children tests.robustness.mutated.faiss_streams [--exhaustive] [--seed TEXT]

runs a module by hand and prints the outcomes; with a seed, of other damages than the tests'.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from ragengine.errors import RagEngineError

SEED: Final = "DAMAGE_SEED"
"""The variable of the environment that makes the modules draw other cases."""
CASE_SECONDS: Final = 30.0
"""A case that takes longer hangs; on an idle machine each takes less than a tenth of a second."""
ADDRESS_SPACE: Final = 4 << 30
"""Bytes that a child may map in addition to its libraries."""
CASE_MEMORY: Final = 256 << 20
"""Bytes of memory that a case may touch by default."""
LONGEST_MESSAGE: Final = 6000
"""Characters of an error: it lists at most 20 problems, and of each name 120 characters."""

Expected: TypeAlias = Literal["refused", "answered", "either"]


@dataclass(frozen=True)
class Case:
    """One change to a file, and the outcome that it must have.

    ``run`` gets an empty folder.  It returns if the answer was right, raises :class:`RagEngineError` if
    ragengine refused, and anything else if the answer was wrong.  A refusal contains ``mentions``.
    ``memory`` is how much the case may add to the memory of the child, in bytes.
    """

    name: str
    run: Callable[[Path], object]
    expected: Expected = "either"
    mentions: str = ""
    memory: int = CASE_MEMORY


@dataclass
class Report:
    """The outcomes of the cases, by name.  ``most_memory`` is the most that one touched, in bytes."""

    refused: dict[str, str] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    most_memory: tuple[int, str] = (0, "")

    def __str__(self) -> str:
        reasons = Counter(message.split(": ")[-1][:60] for message in self.refused.values())
        told = "".join(f"\n  {number} {reason}" for reason, number in reasons.most_common(12))
        wrong = "".join(f"\n  FAILED {name}: {what}" for name, what in self.failures.items())
        size, name = self.most_memory
        return (
            f"{len(self.answered)} answered, {len(self.refused)} refused, {len(self.failures)} failed; "
            f"most memory {size >> 20} MiB ({name}){told}{wrong}"
        )


class Cases(Protocol):
    """A module of cases."""

    def prepare(self, base: Path) -> None: ...

    def cases(self, base: Path, exhaustive: bool) -> Iterable[Case]: ...


def run_cases(
    module: str, scratch: Path, *, exhaustive: bool = False, seconds: float = CASE_SECONDS
) -> Report:
    """Run every case of a module in children; ``scratch`` is an empty folder."""
    report = Report()
    first: int | None = 0
    (scratch / "base").mkdir()
    _child(["prepare", module, scratch], scratch)
    while first is not None:
        log = scratch / f"log-{first}"
        ended = _child(["run", module, scratch, int(exhaustive), first, seconds, log], scratch, log)
        first = _read_log(log, first, ended, report)
    return report


def _child(arguments: list[object], scratch: Path, log: Path | None = None) -> str:
    """Run a child; returns how it died, if it did.  To die outside a case is an error of the test."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else __spec__.name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    with (scratch / "stderr").open("w+") as stderr:
        done = subprocess.run(
            [*command, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, stderr=stderr
        )
        stderr.seek(0)
        said = stderr.read()
    if done.returncode == 0:
        return ""
    if log is None or not log.exists():
        raise RuntimeError(f"the child {arguments} ended with {done.returncode}: {said}")
    if done.returncode < 0:
        return f"{signal.Signals(-done.returncode).name}; {said[-1500:]}"
    return f"{'hangs' if 'Timeout' in said else f'exits with {done.returncode}'}; {said[-1500:]}"


def _read_log(log: Path, first: int, ended: str, report: Report) -> int | None:
    """Add a child's log to the report; returns the case to continue with, or None after the last."""
    begun, done = "", 0
    for line in log.read_text("utf-8").splitlines():
        kind, name, text, memory = json.loads(line)
        begun = name if kind == "begins" else ""
        done += kind != "begins"
        if kind == "refused":
            report.refused[name] = text
        elif kind == "answered":
            report.answered.append(name)
        elif kind == "failed":
            report.failures[name] = text
        report.most_memory = max(report.most_memory, (memory, name))
    if begun:
        report.failures[begun] = ended or "exits"
        return first + done + 1
    if ended:
        raise RuntimeError(f"a child died between two cases: {ended}")
    return None


def _run_in_child(
    module: Cases, scratch: Path, exhaustive: bool, first: int, seconds: float, log: Path
) -> None:
    """Run the cases from number ``first`` on, and log each before it begins and when it has ended."""
    faulthandler.enable()
    _limit_address_space()
    cases = itertools.islice(module.cases(scratch / "base", exhaustive), first, None)
    with log.open("w", encoding="utf-8", buffering=1) as notes:
        for case in cases:
            notes.write(json.dumps(["begins", case.name, "", 0]) + "\n")
            before = _memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            faulthandler.dump_traceback_later(seconds, exit=True)
            folder = Path(tempfile.mkdtemp(dir=scratch))
            kind, text = _verdict(case, folder)
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(folder)
            grown = _memory("VmHWM") - before
            if grown > case.memory:
                kind, text = "failed", f"touches {grown >> 20} MiB ({kind}: {text})"
            notes.write(json.dumps([kind, case.name, text, grown]) + "\n")


def _verdict(case: Case, folder: Path) -> tuple[str, str]:
    try:
        case.run(folder)
    except RagEngineError as error:
        kind, text = "refused", str(error)
        if fault := message_fault(text):
            return "failed", f"{fault}: {text!r:.500}"
        if case.mentions not in text:
            return "failed", f"refused without a word of {case.mentions!r}: {text}"
    except BaseException:
        return "failed", traceback.format_exc()[-3000:]
    else:
        kind, text = "answered", ""
    if case.expected not in (kind, "either"):
        return "failed", f"{kind}, though it must be {case.expected}: {text}"
    return kind, text


def message_fault(message: str) -> str | None:
    """Why a message is not one sentence that is safe to print on a terminal; None if it is."""
    if len(message) > LONGEST_MESSAGE:
        return f"a message of {len(message)} characters"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in message):
        return "a message with control characters or several lines"
    return None if message.endswith(".") else "a message that is no sentence"


def _limit_address_space() -> None:
    """Turn a forged count that would take the machine's memory into a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE,) * 2)


def _memory(name: str) -> int:
    """Memory of this process in bytes: ``VmRSS``, resident now, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main(arguments: list[str]) -> None:
    """The child's side of :func:`run_cases`, or a run by hand."""
    if arguments[0] not in ("prepare", "run"):
        started = time.perf_counter()
        if "--seed" in arguments:
            os.environ[SEED] = arguments[arguments.index("--seed") + 1]
        with tempfile.TemporaryDirectory() as folder:
            print(run_cases(arguments[0], Path(folder), exhaustive="--exhaustive" in arguments))
        print(f"{time.perf_counter() - started:.1f} s")
        return
    module: Cases = importlib.import_module(arguments[1])
    scratch = Path(arguments[2])
    if arguments[0] == "prepare":
        module.prepare(scratch / "base")
    else:
        exhaustive, first, seconds, log = arguments[3:]
        _run_in_child(module, scratch, exhaustive == "1", int(first), float(seconds), Path(log))


if __name__ == "__main__":
    main(sys.argv[1:])
