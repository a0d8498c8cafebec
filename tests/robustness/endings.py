"""A program that runs a command that writes a folder many times, and ends each run in another way.

    python -m tests.robustness.endings COMMAND SCENE WORK killed|full|limited|forbidden|mounts STEPS

STEPS of ``killed`` are parts of their names, separated by commas, ``named`` (the first of every name) or
``every``; of ``full`` and ``limited``, their number.  A run is a fork of a process that has imported
everything and started no thread.  Prints JSON: ``steps``, the steps tried or the messages seen, and
``faults``, a sentence for each broken promise.
"""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragengine.indexing import resources
from ragengine.storage.ownership import MARK
from tests.robustness.forks import in_fork, on_each_step
from tests.robustness.writers import COMMANDS, content, leftovers
from tests.support.paths import ROOT

_FILLER = "filler"
_NOBODY = 65534


class Ending:
    """One command, its target, and what the target may be after each run."""

    def __init__(self, command: str, scene: Path, work: Path) -> None:
        self.command, self.scene, self.work = command, scene, work
        self.target = work / "target"
        self.old = self._measured(lambda: content(scene / "old" / command))
        self.reset()
        self.new = self._measured(self._run_whole)
        self.size = sum(file.stat().st_size for file in self.target.rglob("*") if file.is_file())
        self.largest = max(file.stat().st_size for file in self.target.rglob("*") if file.is_file())
        self.faults: list[str] = []

    def run(self) -> None:
        COMMANDS[self.command](self.scene, self.target)

    def _run_whole(self) -> dict[str, str]:
        self.run()
        return content(self.target)

    def reset(self) -> None:
        """Restore the target as the command finds it, with no siblings."""
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.scene / "old" / self.command, self.target)

    def check(self, where: str, *, may_be_new: bool) -> None:
        """Check that the target is whole, old or new, and that another run succeeds and cleans up."""
        found = in_fork(lambda: content(self.target))
        allowed = [self.old, self.new] if may_be_new else [self.old]
        if found.value not in allowed:
            self.faults.append(f"{self.command}, {where}: the target is neither old nor new: {found}")
            return
        if inner := [path.name for path in self.target.rglob(".*.writing")]:
            self.faults.append(f"{self.command}, {where}: the target holds {inner}")
        if found.value == self.new and self.command.removeprefix("shards-") in ("add", "delete", "merge"):
            # It would refuse itself.
            shutil.rmtree(self.target)
            shutil.copytree(self.scene / "old" / self.command, self.target)
        again = in_fork(self._run_whole)
        if again.value != self.new:
            self.faults.append(f"{self.command}, {where}: the next run fails: {again}")
        elif leftovers(self.target):
            self.faults.append(f"{self.command}, {where}: the next run leaves {leftovers(self.target)}")

    def _measured(self, measure: Callable[[], Any]) -> Any:
        outcome = in_fork(measure)
        if outcome.value is None:
            raise SystemExit(f"{self.command} fails undisturbed: {outcome}")
        return outcome.value


def killed(ending: Ending, which: str) -> list[str]:
    """Kill the command before its steps."""

    def recorded() -> list[str]:
        steps: list[str] = []
        on_each_step(ending.work, steps.append)
        ending.run()
        return steps

    def run_until(last: int) -> None:
        places = itertools.count()

        def step(name: str) -> None:
            if next(places) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        on_each_step(ending.work, step)
        ending.run()

    ending.reset()
    steps: list[str] = in_fork(recorded).value
    chosen = []
    for place, name in enumerate(steps):
        named = which == "named" or any(part in name for part in which.split(","))
        if which != "every" and (not named or steps.index(name) != place):
            continue
        chosen.append(name)
        ending.reset()
        outcome = in_fork(lambda place=place: run_until(place))
        if outcome.signal != signal.SIGKILL:
            ending.faults.append(f"{ending.command}, {name}: it was not killed: {outcome}")
        ending.check(f"killed at {place}, {name}", may_be_new=True)
    return chosen


def refused(
    ending: Ending, limits: list[int], impose: Callable[[int], None], lift: Callable[[], None]
) -> list[str]:
    """Run the command under each of ``limits``, until it succeeds under one."""

    def limited(limit: int) -> None:
        resources.check_disk = lambda *_: None  # the space disappears after the check
        impose(limit)
        ending.run()

    said = []
    for limit in limits:
        ending.reset()
        outcome = in_fork(lambda limit=limit: limited(limit))
        lift()
        if outcome.signal is None and outcome.error is None:
            break
        said.append(str(outcome.error))
        if not outcome.ours or str(ending.target) not in said[-1] or "nothing was changed" not in said[-1]:
            ending.faults.append(f"{ending.command}, limit {limit}: it is not said: {outcome}")
        ending.check(f"limit {limit}", may_be_new=False)
    else:
        ending.faults.append(f"{ending.command} does not end well with {limits[-1]}")
    return said


def full(ending: Ending, steps: int) -> list[str]:
    """Fill the disk of ``work`` until the command fails at each point."""
    filler = ending.work / _FILLER

    def impose(free: int) -> None:
        room = os.statvfs(ending.work)
        with filler.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - free))

    step = max(4096, ending.size // steps // 4096 * 4096)
    return refused(ending, list(range(0, 8 * ending.size + step, step)), impose, filler.unlink)


def limited(ending: Ending, steps: int) -> list[str]:
    """Limit the size of files: the system refuses further writes, as with a quota."""

    def impose(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    step = max(1, ending.largest // steps)
    return refused(ending, [*range(0, ending.largest, step), 4 * ending.largest], impose, lambda: None)


def forbidden(ending: Ending, scenes: dict[str, Callable[[Ending], None]]) -> list[str]:
    """Deny the command permissions; root becomes nobody for it."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:  # import now what only root may read
            shutil.copytree(ending.scene / "old" / ending.command, Path(folder, "target"))
            COMMANDS[ending.command](ending.scene, Path(folder, "target"))
        if os.getuid() == 0 and scenes is PERMISSIONS:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        ending.run()

    said = []
    for name, arrange in scenes.items():
        ending.reset()
        arrange(ending)
        outcome = in_fork(run)
        said.append(str(outcome.error))
        named = any(str(path) in said[-1] for path in (ending.target, ending.work / ".target.writing"))
        if not outcome.ours or not named:
            ending.faults.append(f"{name}: it is not said: {outcome}")
        for undo in (("umount", ending.target), ("mount", "-o", "remount,rw", ending.work)):
            subprocess.run(list(map(str, undo)), check=False, capture_output=True)
        for path in (ending.work, *ending.work.iterdir()):
            path.chmod(0o755)
        ending.check(name, may_be_new=False)
    return said


def _above(ending: Ending) -> None:
    ending.work.chmod(0o555)


def _target(mode: int) -> Callable[[Ending], None]:
    def arrange(ending: Ending) -> None:
        ending.work.chmod(0o777)
        ending.target.chmod(mode)

    return arrange


def _leftover(mode: int) -> Callable[[Ending], None]:
    def arrange(ending: Ending) -> None:
        _target(0o777)(ending)
        leftover = ending.work / ".target.writing"
        (leftover / "output").mkdir(parents=True)
        (leftover / "output" / "manifest.json").touch()
        (leftover / MARK).touch()
        leftover.chmod(mode)

    return arrange


def _read_only(ending: Ending) -> None:
    subprocess.run(["mount", "-o", "remount,ro", ending.work], check=True)


def _mount_point(ending: Ending) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", ending.target], check=True)


PERMISSIONS: dict[str, Callable[[Ending], None]] = {
    "the folder above cannot be written": _above,
    "the target cannot be read": _target(0),
    "the target cannot be written": _target(0o555),
    "a leftover of somebody else": _leftover(0o555),
    "a leftover that cannot be read": _leftover(0),
}
MOUNTS: dict[str, Callable[[Ending], None]] = {
    "a read-only disk": _read_only,
    "a mount point": _mount_point,
}


def main() -> None:
    command, scene, work, how, steps = sys.argv[1:]
    if command == "export":
        importlib.import_module("ragengine_export")
    ending = Ending(command, Path(scene), Path(work))
    if how == "killed":
        names = killed(ending, steps)
    elif how in ("full", "limited"):
        names = (full if how == "full" else limited)(ending, int(steps))
    else:
        names = forbidden(ending, PERMISSIONS if how == "forbidden" else MOUNTS)
    print(json.dumps({"steps": names, "faults": ending.faults}))


def run_endings(
    command: str, scene: Path, work: Path, how: str, steps: str, *, mounted: bool = False
) -> list[str]:
    """Run this program, with ``mounted`` on a small disk of its own; returns ``steps``, asserts no faults."""
    return run_program(__name__, [command, scene, work, how, steps], work, mounted=mounted)


def run_program(
    module: str, arguments: list[object], work: Path, *, mounted: bool = False, preload: Path | None = None
) -> list[str]:
    """Run a program that prints ``steps`` and ``faults`` as JSON; returns ``steps``, asserts no faults."""
    program = [sys.executable, "-m", module, *arguments]
    if mounted:
        script = 'mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@"'
        program = ["unshare", "-rm", "sh", "-c", script, work, *program]
    work.mkdir(exist_ok=True)
    preloaded = {} if preload is None else {"LD_PRELOAD": str(preload)}
    run = subprocess.run(
        [str(part) for part in program],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **preloaded},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert not found["faults"], "\n".join(found["faults"])
    steps_seen: list[str] = found["steps"]
    return steps_seen


def can_mount() -> bool:
    """Whether this user may mount a disk in a new namespace."""
    program = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    try:
        return subprocess.run(program, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
