"""A build that is watched from outside: the time and the anonymous memory of its phases, and its death."""

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ragengine.errors import RagEngineError

_STEP = 0.05  # seconds between two looks at the memory
_START = "start"
_FILES = "files"  # after the last setting is tuned: hashing, and reading back


@dataclasses.dataclass
class Kill:
    """A moment to kill the build at, and how far it was then: ``fraction`` of a ``phase``."""

    phase: str
    fraction: float
    done: int = 0
    resumed_at: int | None = None
    """The first number of the phase that the resumed build reported."""


@dataclasses.dataclass
class Phase:
    """Seconds and the largest anonymous memory of a phase, over all runs of the build."""

    name: str
    seconds: float = 0.0
    peak_anonymous: int = 0


@dataclasses.dataclass
class BuildReport:
    """What a build took; times are by the clock, killed runs and their lost work included."""

    seconds: float = 0.0
    phases: list[Phase] = dataclasses.field(default_factory=list)
    kills: list[Kill] = dataclasses.field(default_factory=list)

    @property
    def peak_anonymous(self) -> int:
        """The largest anonymous memory of all phases, in bytes."""
        return max((phase.peak_anonymous for phase in self.phases), default=0)

    def phase(self, name: str) -> Phase:
        """The phase of this name, which begins now if it is new."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        self.phases.append(Phase(name))
        return self.phases[-1]


def watched_build(
    arguments: Sequence[str], kills: Sequence[Kill], log: Path, say: Callable[[str], None]
) -> BuildReport:
    """Run ``ragengine_bench.index.scale.build``, kill it at each of ``kills``, and resume it."""
    report, start = BuildReport(), time.monotonic()
    waiting = list(kills)
    resume: list[str] = []
    with log.open("ab") as errors:
        while True:
            killed = _run([*arguments, *resume], report, waiting, errors.fileno(), say)
            report.seconds = time.monotonic() - start
            if killed is None:
                return report
            resume = ["--resume"]


def _run(
    arguments: Sequence[str],
    report: BuildReport,
    waiting: list[Kill],
    errors: int,
    say: Callable[[str], None],
) -> Kill | None:
    """One process until it ends, or until it is killed."""
    command = [sys.executable, "-m", "ragengine_bench.index.scale.build", *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
    reader.start()
    phase, mark = report.phase(_START), time.monotonic()
    try:
        while child.poll() is None:
            time.sleep(_STEP)
            phase.peak_anonymous = max(phase.peak_anonymous, anonymous_bytes(child.pid))
            while not lines.empty():
                name, done, total = json.loads(lines.get())
                now = time.monotonic()
                phase.seconds, mark = phase.seconds + now - mark, now
                if name != phase.name and not (phase.name == _FILES and name == "tune"):
                    phase = report.phase(name)
                    say(f"{name} begins")
                if total:
                    for kill in report.kills:
                        if kill.phase == name and kill.resumed_at is None:
                            kill.resumed_at = done
                if total and (due := _due(waiting, name, done / total)) is not None:
                    os.kill(child.pid, signal.SIGKILL)
                    child.wait()
                    due.done = done
                    report.kills.append(due)
                    say(f"killed in {name} at {done:,} of {total:,}")
                    return due
                if name == "tune" and done == total:
                    phase = report.phase(_FILES)
        phase.seconds += time.monotonic() - mark
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        reader.join()
    if child.returncode != 0:
        raise RagEngineError(f"The build ended with {child.returncode}; its log says why.")
    return None


def _read(child: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]") -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line)


def _due(waiting: list[Kill], phase: str, fraction: float) -> Kill | None:
    """The next of ``waiting`` if its moment has come."""
    if waiting and waiting[0].phase == phase and fraction >= waiting[0].fraction:
        return waiting.pop(0)
    return None


def anonymous_bytes(pid: int | str = "self") -> int:
    """Anonymous resident memory of a process now, mapped files not counted; 0 where it is not known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
