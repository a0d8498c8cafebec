"""The steps of ``ragengine bench ray-rag``, and its report."""

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from ragengine.arrays import FloatArray, RowArray
from ragengine.cli.console import SafeConsole, line
from ragengine.cli.output import echo
from ragengine.errors import InputError, RagEngineError
from ragengine.retrieval.index import PassageIndex
from ragengine.storage.atomic import output_file
from ragengine_bench.harness.machine import machine
from ragengine_bench.harness.report import FILE
from ragengine_bench.index.scale.watch import anonymous_bytes
from ragengine_bench.ray_rag.designs import Design, FirstRank, Mapped, ShardWorkers, WholeWorkers
from ragengine_bench.ray_rag.processes import TrainingProcess
from ragengine_ray.processes import RemoteObject, call_all, local_ray

_MIB = 1 << 20


@dataclasses.dataclass
class Cell:
    """One design with so many processes; each list has an entry a round.

    first      seconds of the calls of all training processes, when these have just joined
    seconds    of the same calls made again
    trainers   anonymous bytes that each training process has taken for it, without its imports
    searchers  the same of each process that searches beside them
    load       the machine's load average, of one minute, at the end
    """

    design: str
    workers: int
    processes: int
    first: list[list[float]] = dataclasses.field(default_factory=list)
    seconds: list[list[float]] = dataclasses.field(default_factory=list)
    trainers: list[list[int]] = dataclasses.field(default_factory=list)
    searchers: list[list[int]] = dataclasses.field(default_factory=list)
    load: list[float] = dataclasses.field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """Of the calls of each round, in seconds."""
        return [median(calls) for calls in self.seconds]

    @property
    def median(self) -> float:
        """Of the calls of all rounds, in seconds."""
        return median(second for calls in self.seconds for second in calls)

    @property
    def anonymous(self) -> int:
        """The most that all processes together have taken, in bytes."""
        return max(sum(a) + sum(b) for a, b in zip(self.trainers, self.searchers, strict=True))


@dataclasses.dataclass
class RayRagReport:
    """What was measured, and how."""

    machine: dict[str, Any]
    index: dict[str, Any]
    batch: int
    n_docs: int
    calls: int
    cells: list[Cell] = dataclasses.field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Replace ``report.json``."""
        with output_file(folder / FILE, parents=True) as file:
            file.write(f"{json.dumps(dataclasses.asdict(self), indent=1)}\n".encode())


def measure_ray_rag(
    *, index: Path, questions: Path, processes: Sequence[int], workers: Sequence[int], batch: int,
    n_docs: int, calls: int, rounds: int, threads: int, work: Path, output: Path,
) -> RayRagReport:  # fmt: skip
    """Measure all designs by turns; the arguments are the command's options."""
    start = time.monotonic()

    def say(text: str) -> None:
        echo(f"{time.monotonic() - start:8.0f} s  {text}", err=True)

    begun, vectors = machine(threads), _questions(questions, batch)
    batches = [vectors[np.arange(at, at + batch) % len(vectors)] for at in range(0, calls * batch, batch)]
    with PassageIndex.open(index, verify="size") as whole:
        expected = whole.search(batches[0], n_docs).rows
        for some in batches:  # all designs find the files in memory
            whole.search(some, n_docs)
        manifest = whole.manifest
    facts = {"count": manifest.count, "dimension": manifest.dimension, "factory": manifest.factory}
    report = RayRagReport(begun, {**facts, "search": manifest.search}, batch, n_docs, calls)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="ray-rag-") as folder, local_ray(threads):
        linked = Path(folder).resolve() / "index"  # shards are written beside it
        shutil.copytree(index, linked, copy_function=_linked)
        say("starting the processes")
        designs = _designs(linked, Path(folder) / "meeting", workers)
        searchers = [[_Watched(worker) for worker in design.workers] for _, _, design in designs]
        trainers = [RemoteObject.start(TrainingProcess, rank) for rank in range(max(processes))]
        for turn in range(rounds):
            for number in _rotated(range(len(designs)), turn):
                name, count, design = designs[number]
                say(f"round {turn + 1}: {name}, {count} workers")
                for these in (trainers[:some] for some in processes):
                    cell = _cell(report, name, count, len(these))
                    _measure(cell, design, turn, these, batches, n_docs, expected)
                    cell.searchers.append([one.taken for one in searchers[number]])
                report.write(output)
    say("done")
    return report


def _designs(index: Path, meeting: Path, workers: Sequence[int]) -> list[tuple[str, int, Design]]:
    """Name and number of workers of each design, whose workers are started."""
    return [
        ("mapped", 0, Mapped(index)),
        *(("shard actors", count, ShardWorkers(index, count)) for count in workers),
        *(("whole-index actors", count, WholeWorkers(index, count)) for count in workers),
        ("first rank", 0, FirstRank(index, meeting)),
    ]


def _rotated(numbers: Sequence[int], turn: int) -> list[int]:
    """The numbers from another one on each turn."""
    at = turn * 2 % len(numbers)
    return [*numbers[at:], *numbers[:at]]


def _measure(
    cell: Cell, design: Design, turn: int, trainers: Sequence[RemoteObject], batches: Sequence[FloatArray],
    n_docs: int, expected: RowArray,
) -> None:  # fmt: skip
    """A round of a design with ``trainers``, which must find the rows ``expected`` for the first batch."""
    call_all(trainers, "join", design, len(trainers), turn)
    for found in call_all(trainers, "found", batches[0], n_docs):
        if not np.array_equal(found, expected):
            raise RagEngineError(f"{cell.design} with {cell.workers} workers found other documents.")
    for seconds in (cell.first, cell.seconds):
        calls = call_all(trainers, "retrieve", batches, n_docs)
        seconds.append([second for of_one in calls for second in of_one])
    cell.trainers.append(call_all(trainers, "taken"))
    cell.load.append(os.getloadavg()[0])


class _Watched:
    """A process, and the anonymous memory that it takes from now on."""

    def __init__(self, object: RemoteObject) -> None:
        self.object = object
        self._before = int(object.run(_own_anonymous_bytes))

    @property
    def taken(self) -> int:
        """How many bytes."""
        return int(self.object.run(_own_anonymous_bytes)) - self._before


def _own_anonymous_bytes(_: object) -> int:
    return anonymous_bytes()


def _cell(report: RayRagReport, name: str, workers: int, processes: int) -> Cell:
    for cell in report.cells:
        if (cell.design, cell.workers, cell.processes) == (name, workers, processes):
            return cell
    report.cells.append(Cell(name, workers, processes))
    return report.cells[-1]


def _questions(path: Path, batch: int) -> FloatArray:
    try:
        vectors: FloatArray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as reason:
        raise InputError(f"{path} cannot be read as a .npy of questions: {reason}.") from reason
    if vectors.ndim != 2 or len(vectors) < batch or vectors.dtype != np.float32:
        raise InputError(
            f"{path} is {vectors.dtype} {list(vectors.shape)}; float32 [Q, E] of at least {batch} questions "
            "is needed."
        )
    return vectors


def _linked(source: str, target: str) -> None:
    """Share a file where the disk is the same, else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def print_ray_rag(report: RayRagReport) -> None:
    """A row a design: the median of a call, and the medians of the rounds from the least to the largest."""
    processes = sorted({cell.processes for cell in report.cells})
    index = report.index
    title = (
        f"{index['count']:,} vectors, {index['factory']}: ms a call of {report.batch} questions, by training "
        "processes"
    )
    table = Table(title=line(title), box=None)
    for name in ("design", "workers"):
        table.add_column(name)
    for count in processes:
        table.add_column(f"{count}", justify="right")
    for name in ("MiB of all", "of a worker"):
        table.add_column(name, justify="right")
    for name, workers in dict.fromkeys((cell.design, cell.workers) for cell in report.cells):
        cells = [_cell(report, name, workers, count) for count in processes]
        searchers = [taken for cell in cells for round_ in cell.searchers for taken in round_]
        table.add_row(
            name,
            str(workers or "-"),
            *(_shown(cell) for cell in cells),
            f"{cells[-1].anonymous / _MIB:,.0f}",
            f"{max(searchers) / _MIB:,.0f}" if searchers else "-",
        )
    SafeConsole().print(table)
    load = [load for cell in report.cells for load in cell.load]
    echo(
        f"load {min(load):.1f} to {max(load):.1f} on {report.machine['cores']} cores "
        f"({report.machine['processor']}); {len(report.cells[0].seconds)} rounds by turns"
    )


def _shown(cell: Cell) -> str:
    return f"{cell.median * 1e3:.1f} ({min(cell.medians) * 1e3:.1f}-{max(cell.medians) * 1e3:.1f})"
