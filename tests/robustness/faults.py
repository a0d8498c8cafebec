"""A program that runs a command that writes a folder, with its calls to the C library failing or recorded.

    LD_PRELOAD=file_calls.so python -m tests.robustness.faults COMMAND SCENE WORK HOW[,HOW...] STEPS

HOW is some of :data:`FAULTS`, each done to STEPS calls in turn: a number of them, ``every``, or
``NUMBER:SEED`` for random ones.  HOW is also ``order``, to check the order of writes, syncs and renames; or
``unsynced``, to list the calls of a sync in the source that this check does not miss when they are taken out.
Prints JSON as :mod:`tests.robustness.endings` does.
"""

import errno
import importlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.robustness.durability import broken_promises
from tests.robustness.endings import Ending, run_program
from tests.robustness.file_calls import FAIL, FAIL_FROM_HERE, KILL, SHORT, Call, fail_at, recorded
from tests.robustness.forks import Outcome, in_fork
from tests.robustness.unsynced import Site, sync_sites, take_out
from tests.robustness.writers import content

FAULTS = {
    "EIO": (FAIL, errno.EIO),
    "ENOSPC": (FAIL, errno.ENOSPC),
    "broken": (FAIL_FROM_HERE, errno.EIO),
    "short": (SHORT, 0),
    "killed": (KILL, 0),
}


def run_faults(command: str, scene: Path, work: Path, how: str, steps: str, library: Path) -> list[str]:
    """Run this program with ``library``; returns the steps it tried, asserts no faults."""
    return run_program(__name__, [command, scene, work, how, steps], work, preload=library)


def faulty(ending: Ending, how: str, steps: str) -> list[str]:
    """Let calls fail, one in each run: the target is the old or the new one, and nothing else."""
    calls = _calls(ending)
    chosen = [number for number, call in enumerate(calls) if how != "short" or call.name == "write"]
    if ":" in steps:
        count, seed = steps.split(":")
        chosen = Random(seed).sample(chosen, min(int(count), len(chosen)))
    elif steps != "every":
        # Each fault begins at another call.
        stride = max(1, len(chosen) // int(steps))
        chosen = chosen[list(FAULTS).index(how) * stride // len(FAULTS) :: stride]
    tried = []
    for number in chosen:
        where = f"{how} at {number}, {calls[number].name} {Path(calls[number].path).name}"
        ending.reset()
        outcome = in_fork(lambda number=number: _run_faulty(ending, number, how))
        fault = _fault(ending, outcome, how)
        if fault:
            ending.faults.append(f"{ending.command}, {where}: {fault}")
        else:
            ending.check(where, may_be_new=True)
        tried.append(where)
    return tried


def _run_faulty(ending: Ending, number: int, how: str) -> None:
    what, error = FAULTS[how]
    fail_at(ending.work, number, what, error)
    ending.run()


def _calls(ending: Ending, run: Callable[[], None] | None = None) -> list[Call]:
    """The calls of the command, or of ``run``."""

    def record() -> list[Call]:
        with recorded(ending.work) as calls:
            (run or ending.run)()
        return calls

    ending.reset()
    return [Call(*call) for call in in_fork(record).value]


def _fault(ending: Ending, outcome: Outcome, how: str) -> str | None:
    """What the outcome says against what the target is, or None where they agree."""
    if outcome.signal is not None:
        expected = how == "killed" and outcome.signal == signal.SIGKILL
        return None if expected else f"it dies: {outcome}"
    found = in_fork(lambda: content(ending.target)).value
    if outcome.error is None:
        return None if found == ending.new else f"it succeeds, but the target is not the new one ({outcome})"
    if how == "short":
        return f"a short write is an error: {outcome}"
    if not outcome.ours:
        return f"the error is not typed: {outcome}"
    said = {"nothing was changed": ending.old, "it is the new one": ending.new}
    wrong = any(words in outcome.error and found != promised for words, promised in said.items())
    return f"the target is not what the error says: {outcome}" if wrong else None


def ordered(ending: Ending) -> list[str]:
    """Check the order of the command's calls, and that every byte of the result was among them."""
    calls = _calls(ending)
    ending.faults += [f"{ending.command}: {sentence}" for sentence in broken_promises(calls)]
    written = {Path(call.path).name for call in calls if call.name == "write"}
    linked = {Path(call.new_path).name for call in calls if call.name == "link"}
    unseen = {file.name for file in ending.target.rglob("*") if file.is_file()} - written - linked
    seen_later = {f".{name}.writing" for name in unseen} & written
    unseen -= {name.removeprefix(".").removesuffix(".writing") for name in seen_later}
    ending.faults += [f"{ending.command}: {name} was written by calls that are not seen" for name in unseen]
    return [call.name for call in calls]


def without_syncs(ending: Ending) -> list[str]:
    """Take each call of a sync out of the source: returns those whose absence breaks no promise."""
    unnoticed = []
    for site in sync_sites():

        def run(site: Site = site) -> None:
            take_out(site)
            ending.run()

        if not broken_promises(_calls(ending, run)):
            unnoticed.append(str(site))
    return unnoticed


def main() -> None:
    command, scene, work, how, steps = sys.argv[1:]
    if command == "export":
        importlib.import_module("ragengine_export")
    ending = Ending(command, Path(scene), Path(work))
    if how == "order":
        tried = ordered(ending)
    elif how == "unsynced":
        tried = without_syncs(ending)
    else:
        tried = [step for fault in how.split(",") for step in faulty(ending, fault, steps)]
    print(json.dumps({"steps": tried, "faults": ending.faults}))


if __name__ == "__main__":
    main()
