"""The measurement of one index method."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.indexing import training
from ragengine.retrieval.faiss_api import faiss_threads
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.gpu.placement import GPU_SUBQUANTIZERS
from ragengine.retrieval.recall import RECALL_AT, RecallTest
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.runtime.progress import silent

WIDTHS = (16, 64, 256)
"""Candidates that are re-ranked with the stored vectors."""
_GRAPH_WIDTH = 16
_NPROBES = tuple(2**power for power in range(10))
_EF_SEARCHES = (16, 32, 64, 128, 256, 512)
_LINKS, _EF_CONSTRUCTION = 16, 40
_ENOUGH = 0.995  # of recall: higher settings show nothing new
_LATENCY_SECONDS, _LEAST_LATENCIES = 2.0, 20
_BATCH, _BATCH_SECONDS = 64, 1.0


@dataclass(frozen=True)
class Point:
    """One setting of a method: recall@5 of FAISS's own order and after re-ranking; times in milliseconds.

    ``batch_qps`` is questions per second in batches of 64; ``latencies`` how many single searches were timed.
    """

    search: dict[str, int]
    recall_before: float
    recall: float
    median_ms: float
    p99_ms: float
    batch_qps: float
    latencies: int


@dataclass(frozen=True)
class MethodResult:
    """A method on ``count`` vectors.  ``bytes_per_vector`` is the size of the FAISS file; ``open_ms`` is for
    mapping it."""

    method: str
    factory: str
    count: int
    train_s: float
    add_s: float
    bytes_per_vector: float
    open_ms: float
    points: list[Point] = field(default_factory=list)

    def best(self, recall: float) -> Point | None:
        """The fastest point of at least this recall."""
        return min((p for p in self.points if p.recall >= recall), key=lambda p: p.median_ms, default=None)


def factory_of(method: str, count: int, dimension: int) -> str:
    """The FAISS factory of a method: lists and code sizes are those of ``ragengine index build``."""
    lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    size = next(m for m in reversed(GPU_SUBQUANTIZERS) if 4 * m <= dimension and dimension % m == 0)
    return {
        "flat": "Flat",
        "ivf": f"IVF{lists},Flat",
        "ivf-pq": f"IVF{lists},PQ{size}",
        "opq-ivf-pq": f"OPQ{size}_{4 * size},IVF{lists},PQ{size}",
        "hnsw": f"HNSW{_LINKS}",
    }[method]


def measure_method(
    method: str, vectors: HalfArray, test: RecallTest, folder: Path, threads: int, say: Callable[[str], None]
) -> MethodResult:
    """Build a method's FAISS index over ``vectors`` [N, E] and search it with the questions of ``test``."""
    count, dimension = vectors.shape
    factory = factory_of(method, count, dimension)
    max_norm = _max_norm(vectors)
    path = folder / f"{method}.faiss"
    train_s, add_s = _build(factory, vectors, path, threads, say)
    try:
        start = time.perf_counter()
        faiss_index = read_faiss(path, mapped=True)
        VectorIndex(faiss_index, vectors, max_norm, {})
        open_ms = 1000 * (time.perf_counter() - start)
        result = MethodResult(
            method, factory, count, train_s, add_s, path.stat().st_size / count, round(open_ms, 2)
        )
        for search in _searches(method, faiss_index):
            points = list(_measure(method, faiss_index, vectors, max_norm, search, test, threads))
            result.points.extend(points)
            say(f"{method} {search}: recall {points[-1].recall:.3f}, median {points[-1].median_ms:.2f} ms")
            if points[-1].recall >= _ENOUGH:
                break
    finally:
        path.unlink()
    return result


def _build(
    factory: str, vectors: HalfArray, path: Path, threads: int, say: Callable[[str], None]
) -> tuple[float, float]:
    """Write the FAISS file; the seconds of training and of adding."""
    faiss_index = training.empty_faiss_index(factory, vectors.shape[1])
    if hasattr(faiss_index, "hnsw"):
        faiss_index.hnsw.efConstruction = _EF_CONSTRUCTION
    say(f"{factory}: training")
    start = time.perf_counter()
    training.train(faiss_index, vectors, factory, 0, threads, silent)
    trained = time.perf_counter()
    say(f"{factory}: adding {len(vectors):,} vectors")
    training.add(faiss_index, vectors, factory, threads, silent)
    added = time.perf_counter()
    training.write_faiss(faiss_index, path)
    return trained - start, added - trained


def _searches(method: str, faiss_index: Any) -> Iterator[dict[str, int]]:
    if method == "flat":
        yield {}
    elif method == "hnsw":
        yield from ({"efSearch": ef} for ef in _EF_SEARCHES)
    else:
        import faiss

        lists = faiss.extract_index_ivf(faiss_index).nlist
        yield from ({"nprobe": nprobe} for nprobe in _NPROBES if nprobe <= lists)


def _measure(
    method: str, faiss_index: Any, vectors: HalfArray, max_norm: float, search: dict[str, int],
    test: RecallTest, threads: int,
) -> Iterator[Point]:  # fmt: skip
    """A point for each width worth re-ranking: codes need it, vectors and graphs hardly."""
    widths = WIDTHS if method.endswith("pq") else (_GRAPH_WIDTH,)
    previous = -1.0
    with faiss_threads(threads):
        for width in widths:
            index = VectorIndex(faiss_index, vectors, max_norm, {**search, "rerank_width": width})
            if method == "flat":
                before = recall = 1.0  # it is what the others are compared with
            else:
                # By FAISS's own order: the first n_docs + 1, of which a question's own vector may be one.
                _, candidates = faiss_index.search(test.questions, test.n_docs + 1)
                before = _recall_of(candidates, test, index)
                recall = test.measure(index)
            if recall <= previous:
                break
            previous = recall
            latencies = _latencies(index, test.questions)
            yield Point(
                _settings(search, width, method),
                round(before, 4),
                round(recall, 4),
                1000 * statistics.median(latencies),
                1000 * float(np.quantile(latencies, 0.99)),
                _batch_qps(index, test.questions),
                len(latencies),
            )


def _settings(search: dict[str, int], width: int, method: str) -> dict[str, int]:
    """What is set for a point; exact search has no settings."""
    return {} if method == "flat" else {**search, "rerank_width": width}


def _recall_of(candidates: Any, test: RecallTest, index: VectorIndex) -> float:
    """The recall@5 of the first five candidates that are not the question itself."""
    others = np.full((len(candidates), test.n_docs), -1, np.int64)
    for q, proposed in enumerate(candidates):
        kept = proposed[proposed != test.rows[q]][: test.n_docs]
        others[q, : len(kept)] = kept
    return test.measure_widths(index, others, [test.n_docs])[0]


def _latencies(index: VectorIndex, questions: FloatArray) -> list[float]:
    """Seconds of single searches, after three that warm up: all questions, or what there is time for."""
    for question in questions[:3]:
        index.search(question[None], RECALL_AT)
    seconds: list[float] = []
    for question in questions:
        start = time.perf_counter()
        index.search(question[None], RECALL_AT)
        seconds.append(time.perf_counter() - start)
        if len(seconds) >= _LEAST_LATENCIES and sum(seconds) > _LATENCY_SECONDS:
            break
    return seconds


def _batch_qps(index: VectorIndex, questions: FloatArray) -> float:
    start = time.perf_counter()
    done = 0
    while not done or time.perf_counter() - start < _BATCH_SECONDS:
        first = done % len(questions)
        batch = questions[first : first + _BATCH]
        index.search(batch, RECALL_AT)
        done += len(batch)
    return done / (time.perf_counter() - start)


def _max_norm(vectors: HalfArray) -> float:
    blocks = (vectors[start : start + 16384] for start in range(0, len(vectors), 16384))
    return math.sqrt(max(np.einsum("ke,ke->k", b, b, dtype=np.float64).max() for b in blocks))
