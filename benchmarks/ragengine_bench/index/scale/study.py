"""The steps of ``ragengine bench scale``, and its report."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ragengine.cli.console import SafeConsole, line
from ragengine.cli.output import echo
from ragengine.errors import RagEngineError
from ragengine.retrieval.manifest import IndexManifest
from ragengine.storage.atomic import output_file
from ragengine_bench.checkpoints.random_checkpoint import RAG, write_random_checkpoint
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.harness.machine import machine
from ragengine_bench.index.scale.build import BUNDLE, INDEX, PASSAGES, QUERIES
from ragengine_bench.index.scale.data import ScaleData
from ragengine_bench.index.scale.watch import BuildReport, Kill, watched_build

_HELD_OUT = "questions.npy"
_KILLED_PHASES = ("vectors", "add")
_MIB = 1 << 20


@dataclasses.dataclass
class ScaleReport:
    """What was measured; times in seconds where their name does not say otherwise, sizes in bytes."""

    count: int
    dimension: int
    machine: dict[str, Any]
    load_average_at_end: float
    factory: str
    build: BuildReport
    peak_anonymous: int
    bytes_per_vector: dict[str, float]
    search: dict[str, Any]


def measure_scale(
    *, count: int, dimension: int, queries: int, kills: int, seed: int, threads: int, work: Path,
    keep: bool, output: Path,
) -> ScaleReport:  # fmt: skip
    """Build, kill, resume and search; the arguments are the command's options."""
    start = time.monotonic()

    def say(text: str) -> None:
        echo(f"{time.monotonic() - start:8.0f} s  {text}", err=True)

    begun = machine(threads)
    work.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    try:
        say(f"writing {count:,} passages")
        _write_inputs(work, count, dimension, queries)
        arguments = [str(work), str(count), str(dimension), str(threads)]
        built = watched_build(arguments, _moments(kills, seed), output / "build.log", say)
        say("searching")
        searched = _searched(work)
        manifest = IndexManifest.read(work / INDEX)
        report = ScaleReport(
            count,
            dimension,
            begun,
            os.getloadavg()[0],
            manifest.factory,
            built,
            built.peak_anonymous,
            {name: round(entry.size / count, 2) for name, entry in manifest.files.items()},
            searched,
        )
        with output_file(output / "report.json") as file:
            file.write(f"{json.dumps(dataclasses.asdict(report), indent=2)}\n".encode())
    finally:
        if not keep:
            _remove(work)
    say("done")
    return report


def _write_inputs(work: Path, count: int, dimension: int, queries: int) -> None:
    """The passages, the questions and a bundle whose encoder has the dimension of the vectors."""
    data = ScaleData(count, dimension)
    data.write_passages(work / PASSAGES)
    questions = data.questions(2 * queries)
    np.save(work / QUERIES, questions[:queries])
    np.save(work / _HELD_OUT, questions[queries:])
    if not (work / BUNDLE).exists():
        from ragengine_export import export_checkpoint

        write_random_checkpoint(SHAPES["tiny"], work / "checkpoint", dimension)
        export_checkpoint(work / "checkpoint" / RAG, work / BUNDLE, check=False)
        shutil.rmtree(work / "checkpoint")


def _moments(kills: int, seed: int) -> list[Kill]:
    """Random moments, in the order in which they come."""
    random = np.random.default_rng(seed)
    return [Kill(phase, float(random.uniform(0.1, 0.9))) for phase in _KILLED_PHASES[:kills]]


def _searched(work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "ragengine_bench.index.scale.search"]
    child = subprocess.run(
        [*command, str(work / INDEX), str(work / _HELD_OUT)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        raise RagEngineError(f"Searching ended with {child.returncode}.")
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def _remove(work: Path) -> None:
    """Remove what a run has written, and nothing else that is in its folder."""
    for name in (INDEX, f".{INDEX}.writing", BUNDLE, "checkpoint"):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in (PASSAGES, QUERIES, _HELD_OUT):
        (work / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else
        work.rmdir()


def print_scale(report: ScaleReport) -> None:
    """The phases, then what the index is."""
    table = Table(title=line(f"{report.count:,} vectors of {report.dimension}: {report.factory}"), box=None)
    table.add_column("phase")
    for name in ("seconds", "peak anonymous MiB"):
        table.add_column(name, justify="right")
    for phase in report.build.phases:
        table.add_row(phase.name, f"{phase.seconds:,.1f}", f"{phase.peak_anonymous / _MIB:,.0f}")
    table.add_row("build", f"{report.build.seconds:,.1f}", f"{report.peak_anonymous / _MIB:,.0f}")
    SafeConsole().print(table)
    for kill in report.build.kills:
        echo(f"killed in {kill.phase} at {kill.done:,}, resumed at {kill.resumed_at or 0:,}")
    sizes = ", ".join(f"{name} {size:g}" for name, size in report.bytes_per_vector.items())
    echo(f"bytes a vector: {sizes}")
    search = report.search
    echo(
        f"recall@5 {search['recall']:.4f} of {search['questions']} questions with {search['search']} "
        f"(tuned to {search['tuned_recall']:.4f} with others)"
    )
    shown = partial(_shown, search)
    echo(f"opened cold in {shown('open_cold_ms')}; first question then {shown('first_cold_ms')}")
    echo(f"new questions {shown('new_questions_ms')}; the same again, warm, {shown('warm_ms')}")
    echo(f"anonymous memory of searching: {search['anonymous_searched'] / _MIB:,.0f} MiB")


def _shown(search: dict[str, Any], name: str) -> str:
    return f"{search[name]['median']:.2f} ms (p99 {search[name]['p99']:.2f})"
