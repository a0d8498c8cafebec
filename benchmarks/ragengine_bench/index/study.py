"""The comparison that ``ragengine bench index`` makes: measured, printed and written."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.cli.console import SafeConsole, line
from ragengine.cli.output import echo
from ragengine.errors import IndexFolderError
from ragengine.evaluation import read_questions
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import VECTORS_FILE
from ragengine.retrieval.recall import RecallTest
from ragengine.storage.atomic import output_file
from ragengine.storage.npy import open_vectors
from ragengine_bench.harness.interrupts import sigterm_as_ctrl_c
from ragengine_bench.harness.machine import machine
from ragengine_bench.index.encoding import EncodingResult, measure_encoding
from ragengine_bench.index.methods import MethodResult, measure_method
from ragengine_bench.index.plot import plot_methods
from ragengine_bench.index.synthetic_vectors import Clusters

_TARGET = 0.95
_TABLE_WIDTH = 110


@dataclasses.dataclass
class IndexReport:
    """The figures so far; written after every step, so that an interrupt loses only one step."""

    title: str
    machine: dict[str, Any]
    methods: list[MethodResult] = dataclasses.field(default_factory=list)
    encoding: list[EncodingResult] = dataclasses.field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``report.json``, and the plots where there are figures."""
        with output_file(folder / "report.json", parents=True) as file:
            file.write(f"{json.dumps(dataclasses.asdict(self), indent=2)}\n".encode())
        if self.methods:
            plot_methods(self.title, self.methods, folder / "recall")


def compare_methods(
    *, count: int, dimension: int, folder: Path | None, bundle: Path | None, questions_file: Path | None,
    checkpoint: Path | None, texts: int, methods: Sequence[str], hnsw_vectors: int, queries: int,
    repeats: int, threads: int, work: Path | None, output: Path,
) -> bool:  # fmt: skip
    """Measure, print and write to ``output``; the arguments are the command's options.

    Returns:
        Whether it was interrupted; what was measured until then is printed and written.
    """
    console = SafeConsole(width=max(_TABLE_WIDTH, SafeConsole().width))  # no column is cut in a file either
    say: Callable[[str], None] = partial(echo, err=True)
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    interrupted = False
    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(dir=work, prefix="bench_index_") as name:
        scratch = Path(name)
        if folder is None:
            say(f"drawing {count:,} vectors of {dimension} dimensions")
            clusters = Clusters(count, dimension)
            vectors: HalfArray = clusters.write(scratch / "vectors.npy", count)
            questions: FloatArray | None = clusters.questions(queries)
            title = f"{count:,} clustered vectors of {dimension} dimensions"
        else:
            vectors, questions, title = _of_index(folder, bundle, questions_file, queries, threads)
        report = IndexReport(title, machine(threads))
        try:
            _measure_methods(report, methods, vectors, questions, hnsw_vectors, scratch, threads, output, say)
            if checkpoint is not None and bundle is not None and folder is not None:
                with PassageIndex.open(folder) as opened_index:
                    passages = opened_index.passages(range(min(texts, opened_index.count)))
                pairs = [(passage.title, passage.text) for passage in passages]
                for report.encoding in measure_encoding(bundle, checkpoint, pairs, threads, repeats, say):
                    report.write(output)
        except KeyboardInterrupt:
            interrupted = True
    print_methods(console, report)
    print_encoding(console, report.encoding, len(report.encoding) and texts)
    if report.methods:
        echo(f"every point: {output / 'report.json'}; plots: recall.png, recall.svg")
    return interrupted


def _of_index(
    folder: Path, bundle: Path | None, questions_file: Path | None, queries: int, threads: int
) -> tuple[HalfArray, FloatArray | None, str]:
    """The vectors of an index, the encoded questions of a file, and a title for both."""
    vectors = open_vectors(folder / VECTORS_FILE, np.float16, IndexFolderError)
    title = f"the {len(vectors):,} vectors of {folder.name} ({vectors.shape[1]} dimensions)"
    if bundle is None or questions_file is None:
        return vectors, None, f"{title}, each searched for its nearest others"
    texts = [question.question for question in read_questions(questions_file)[:queries]]
    opened = Bundle.open(bundle)
    encoder = TextEncoder.load(opened, opened.manifest.question_encoder, device="cpu", threads=threads)
    questions = encoder.encode_tokens(encoder.tokenize_questions(texts))
    return vectors, questions, f"{title}, {len(texts)} questions of {questions_file.name}"


def _measure_methods(
    report: IndexReport, methods: Sequence[str], vectors: HalfArray, questions: FloatArray | None,
    hnsw_vectors: int, scratch: Path, threads: int, output: Path, say: Callable[[str], None],
) -> None:  # fmt: skip
    tests: dict[int, RecallTest] = {}
    for method in methods:
        chosen = vectors[:hnsw_vectors] if method == "hnsw" else vectors
        if len(chosen) not in tests:
            say(f"exact search of {len(chosen):,} vectors")
            tests[len(chosen)] = (
                RecallTest.sample(chosen) if questions is None else RecallTest.of_questions(chosen, questions)
            )
        report.methods.append(measure_method(method, chosen, tests[len(chosen)], scratch, threads, say))
        report.write(output)


def print_methods(console: SafeConsole, report: IndexReport) -> None:
    """Every point of every method; the ratio is to flat search of the same vectors in the same run."""
    flat = {r.count: r.points[0].median_ms for r in report.methods if r.method == "flat" and r.points}
    table = Table(title=line(report.title), title_justify="left", box=None)
    for name in ("method", "settings"):
        table.add_column(name, no_wrap=True)
    for name in ("B/vector", "before", "recall@5", "ms", "p99", "batch q/s", "x flat"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in report.methods:
        for number, point in enumerate(result.points):
            ratio = f"{flat[result.count] / point.median_ms:.1f}" if result.count in flat else ""
            table.add_row(
                result.method if number == 0 else "",
                _shown(point.search),
                f"{result.bytes_per_vector:.1f}" if number == 0 else "",
                f"{point.recall_before:.3f}",
                f"{point.recall:.3f}",
                f"{point.median_ms:.2f}",
                f"{point.p99_ms:.2f}",
                f"{point.batch_qps:,.0f}",
                ratio,
            )
    console.print(table)
    for result in report.methods:
        size = f"{result.bytes_per_vector:.1f} bytes a vector"
        best = result.best(_TARGET)
        reached = (
            f"recall@5 {best.recall:.3f} in {best.median_ms:.2f} ms"
            + (f" ({flat[result.count] / best.median_ms:.1f} x flat)" if result.count in flat else "")
            if best is not None
            else f"does not reach {_TARGET}"
        )
        echo(
            f"{result.factory}, {result.count:,} vectors: {reached}; {size}, opened in "
            f"{result.open_ms:.1f} ms, trained in {result.train_s:.1f} s, added in {result.add_s:.1f} s"
        )


def _shown(search: dict[str, int]) -> str:
    """Settings in short: ``nprobe 16, re-rank 64``."""
    return ", ".join(f"{name} {value}" for name, value in search.items()).replace("rerank_width", "re-rank")


def print_encoding(console: SafeConsole, results: Sequence[EncodingResult], texts: int) -> None:
    """Passages per second of each way, and how many times faster ragengine, the first, is."""
    if not results:
        return
    table = Table(title=f"encoding {texts:,} passages", title_justify="left", box=None)
    table.add_column("")
    for name in ("passages/s", "ours is faster by", "largest difference"):
        table.add_column(name, justify="right")
    for result in results:
        ratio = "" if result is results[0] else f"{results[0].rate / result.rate:.2f} x"
        table.add_row(line(result.name), f"{result.rate:,.0f}", ratio, f"{result.largest_difference:.1e}")
    console.print(table)
