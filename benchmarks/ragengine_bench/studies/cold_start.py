"""Time from process start to the first answer, peak memory and idle processor time, for small machines.

    python -m ragengine_bench.studies.cold_start BUNDLE INDEX [--threads N] [--memory-limit MB] [--cold]

Every start is a process of its own.  ``--cold`` drops the page cache of the files before each (Linux); warm
means after a start that was not timed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.table import Table

from ragengine.cli.console import SafeConsole
from ragengine.cli.output import echo, print_json

_QUESTION = "what is the capital of iceland?"
_IDLE_SECONDS = 3


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--memory-limit", type=click.IntRange(1), help="MB, as RagEngine.load(memory_limit=...).")
@click.option("--cold", is_flag=True, help="Drop the files from the page cache before each start.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def cold_start(
    bundle: Path, index: Path, threads: int, memory_limit: int | None, cold: bool, repeats: int
) -> None:
    """Start, answer one question (5 documents, 4 beams, 20 tokens), stay idle, and report."""
    if not cold:
        _start(bundle, index, threads, memory_limit)
    runs = []
    for _ in range(repeats):
        if cold:
            for folder in (bundle, index):
                _forget(folder)
        runs.append(_start(bundle, index, threads, memory_limit))
    table = Table(box=None, title=f"{repeats} starts, {'cold' if cold else 'warm'}, {threads} threads")
    for column in ("", "median", "worst"):
        table.add_column(column, justify="left" if not column else "right")
    for name in runs[0]:
        values = [run[name] for run in runs]
        table.add_row(name, f"{median(values):.2f}", f"{max(values):.2f}")
    SafeConsole().print(table)
    sizes = {folder: _size(folder) / 1e6 for folder in (bundle, index)}
    echo(", ".join(f"{folder.name} {size:.1f} MB" for folder, size in sizes.items()))


def _start(bundle: Path, index: Path, threads: int, memory_limit: int | None) -> dict[str, float]:
    arguments = [str(bundle), str(index), str(threads), str(memory_limit or 0), repr(time.time())]
    command = [sys.executable, "-m", "ragengine_bench.studies.cold_start", "--child", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _child(bundle: str, index: str, threads: str, memory_limit: str, started: str) -> None:
    """The measured process, which imports only what an application would."""
    from ragengine import RagEngine

    limit = int(memory_limit) * 10**6 or None
    engine: Any = RagEngine.load(bundle, index=index, device="cpu", threads=int(threads), memory_limit=limit)
    loaded = time.time()
    engine.generate(_QUESTION, num_beams=4, max_length=20, min_length=20)
    answered = time.time()
    busy = time.process_time()
    time.sleep(_IDLE_SECONDS)
    idle = time.process_time() - busy
    measured = {
        "start to loaded, s": loaded - float(started),
        "start to first answer, s": answered - float(started),
        "peak resident memory, MB": _status("VmHWM") / 1000,
        "resident afterwards, MB": _status("VmRSS") / 1000,
        f"processor time in {_IDLE_SECONDS} s idle, ms": idle * 1000,
    }
    print_json(measured)


def _status(field: str) -> float:
    """A field of /proc/self/status, in kilobytes of 1000."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1.024


def _forget(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
    else:
        cold_start()
