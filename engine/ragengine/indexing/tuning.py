"""Search settings that reach a recall at the least cost (``nprobe`` and the re-rank width)."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.retrieval.faiss_api import extract_ivf, import_faiss, is_graph, search_faiss
from ragengine.retrieval.manifest import IndexManifest, Tuning, TuningPoint
from ragengine.retrieval.recall import RecallTest
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.runtime.progress import Report, silent

_MAX_WIDTH = 1024  # faiss's GPU code returns at most 2048 candidates
_MIN_WIDTH = 16
_QUESTIONS_AT_ONCE = 64
_TIMED_QUESTIONS = 50
# To read and multiply a component of a stored vector takes about as long as to scan 8 bytes of code.
_RERANK_COST = 8


@dataclass(frozen=True)
class Tuned:
    """The settings chosen, the recall measured with them, the median time of one question, all points."""

    search: dict[str, int]
    recall: float
    search_ms: float
    points: list[TuningPoint]


def tune(
    faiss_index: Any,
    vectors: HalfArray,
    max_norm: float,
    test: RecallTest,
    target: float,
    report: Report = silent,
) -> Tuned:
    """Find the cheapest settings of a filled FAISS index that reach ``target``, else those of best recall.

    The settings chosen are measured again by the search that will be used, and that recall is returned.
    Sets run-time parameters of ``faiss_index``.
    """
    sweeps = list(_sweeps(faiss_index, len(vectors), test.n_docs))
    points = _measured_points(faiss_index, vectors, max_norm, test, target, sweeps, report)
    reaching = sorted((p for p in points if p.recall >= target), key=lambda p: p.cost)
    others = sorted((p for p in points if p.recall < target), key=lambda p: (-p.recall, p.cost))
    best: tuple[float, VectorIndex, TuningPoint] | None = None
    for point in [*reaching, *others[:1]]:
        searcher = VectorIndex(faiss_index, vectors, max_norm, point.search)
        recall = test.measure(searcher)
        if best is None or recall > best[0]:
            best = recall, searcher, point
        if recall >= target:
            break
    assert best is not None  # there is always one point
    recall, _, point = best
    searcher = VectorIndex(faiss_index, vectors, max_norm, point.search)
    search_ms = _search_ms(searcher, test)
    report(len(sweeps), len(sweeps))
    return Tuned(point.search, recall, search_ms, points)


def recall_test(vectors: HalfArray, questions: FloatArray | None, seed: int, report: Report) -> RecallTest:
    """The test of an index of ``vectors``: given questions [Q, E], or passages that ``seed`` draws."""
    if questions is None:
        return RecallTest.sample(vectors, seed=seed, report=report)
    return RecallTest.of_questions(vectors, questions, report=report)


def tuned_manifest(
    draft: IndexManifest,
    faiss_index: Any,
    vectors: HalfArray,
    test: RecallTest,
    target: float,
    report: Report,
) -> tuple[IndexManifest, dict[str, float]]:
    """``draft`` with search settings and the recall measured, and the time of a search."""
    tuned = tune(faiss_index, vectors, draft.max_norm, test, target, report)
    tuning = Tuning(
        target=target,
        n_docs=test.n_docs,
        queries=len(test.rows),
        source="passages" if (test.rows >= 0).all() else "file",
        points=tuned.points,
    )
    manifest = replace(draft, search=tuned.search, recall=tuned.recall, tuning=tuning)
    return manifest, {"search_ms": tuned.search_ms}


def exact_manifest(draft: IndexManifest) -> IndexManifest:
    """``draft`` of an index that needs no settings to find everything."""
    return replace(draft, search={}, recall=1.0, tuning=None)


def _measured_points(
    faiss_index: Any,
    vectors: HalfArray,
    max_norm: float,
    test: RecallTest,
    target: float,
    sweeps: list[tuple[dict[str, int], list[int]]],
    report: Report,
) -> list[TuningPoint]:
    points: list[TuningPoint] = []
    for done, (settings, widths) in enumerate(sweeps):
        report(done, len(sweeps))
        cheapest = _cost(faiss_index, vectors, settings, widths[0])
        if any(point.recall >= target and point.cost <= cheapest for point in points):
            break  # all that follow cost more
        searcher = VectorIndex(faiss_index, vectors, max_norm, settings)
        candidates = _candidates(faiss_index, test, widths[-1])
        recalls = test.measure_widths(searcher, candidates, widths)
        for number, (width, recall) in enumerate(zip(widths, recalls, strict=True)):
            if number and recall == recalls[number - 1]:
                continue
            search = {**settings, "rerank_width": width}
            points.append(TuningPoint(search, recall, _cost(faiss_index, vectors, settings, width)))
            if recall >= target:
                break
    return points


def _sweeps(faiss_index: Any, count: int, n_docs: int) -> Iterator[tuple[dict[str, int], list[int]]]:
    """The searches to measure: FAISS settings, and the re-rank widths whose recall one such search gives."""
    least = min(max(_MIN_WIDTH, n_docs + 1), count)
    most = min(max(_MAX_WIDTH, least), count)
    widths = [least]
    while widths[-1] < most:
        widths.append(min(2 * widths[-1], most))
    inverted_lists = extract_ivf(faiss_index)
    efforts = [{}] if inverted_lists is None else [{"nprobe": n} for n in _steps(inverted_lists.nlist)]
    # A graph that is asked for more candidates looks further, and a refined index refines more of them: a
    # narrow search does not find the first candidates of a wide one, so each width needs its own search.
    faiss = import_faiss()
    alone = is_graph(faiss_index) or isinstance(faiss.downcast_index(faiss_index), faiss.IndexRefine)
    for effort in efforts:
        yield from ((effort, [width]) for width in widths) if alone else [(effort, widths)]


def _steps(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and ``most``: powers of two, and the halfway points between them."""
    powers = [2**i for i in range(most.bit_length())]
    return sorted({step for power in powers for step in (power, power * 3 // 2) if step < most} | {most})


def _candidates(faiss_index: Any, test: RecallTest, width: int) -> RowArray:
    blocks = [
        search_faiss(faiss_index, test.questions[start : start + _QUESTIONS_AT_ONCE], width)[1]
        for start in range(0, len(test.questions), _QUESTIONS_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _cost(faiss_index: Any, vectors: HalfArray, settings: dict[str, int], width: int) -> int:
    count, dimension = vectors.shape
    inverted_lists = extract_ivf(faiss_index)
    cost: int = width * dimension * _RERANK_COST
    if inverted_lists is not None:
        cost += count * inverted_lists.code_size * settings["nprobe"] // inverted_lists.nlist
    return cost


def _search_ms(searcher: VectorIndex, test: RecallTest) -> float:
    """The median time of a search for one question, in milliseconds."""
    times = []
    for question in test.questions[:_TIMED_QUESTIONS]:
        start = time.perf_counter()
        searcher.search(question[None], test.n_docs)
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 3)
