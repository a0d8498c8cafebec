"""Steps `search` and `search-large`: one IVF-PQ index, searched on the GPU and on the CPU.

The vectors are those of `ragengine bench index` (:mod:`ragengine_bench.index.synthetic_vectors`).  Both
sides search the same codes with the same settings through ragengine's own classes: FAISS proposes
candidates, which are re-ranked with the stored vectors.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.errors import DeviceError
from ragengine.indexing import training
from ragengine.indexing.plan import training_count
from ragengine.retrieval.faiss_api import faiss_threads, import_faiss
from ragengine.retrieval.gpu.placement import MOST_SELECTED
from ragengine.retrieval.gpu.rescoring import DeviceVectors
from ragengine.retrieval.gpu.search_worker import CandidateSearch, SearchWorker
from ragengine.retrieval.gpu.searcher import GpuSearcher, device_vectors, where
from ragengine.retrieval.recall import RECALL_AT, RecallTest
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.runtime.progress import silent
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.report import Recorder, Table, Target
from ragengine_bench.harness.report import percentile
from ragengine_bench.harness.tables import memory
from ragengine_bench.index.methods import factory_of
from ragengine_bench.index.synthetic_vectors import Clusters

TIMES_CPU, BATCH = 10, 64
"""Target: questions per second of the GPU against the CPU, at this batch."""
_COUNTS = {("search", "full"): 1_000_000, ("search-large", "full"): 10_000_000}
_TOY_COUNT, _DIMENSIONS = 4000, {"full": 768, "toy": 32}
_QUESTIONS = {"full": 256, "toy": 64}
_SECONDS = {"full": 2.0, "toy": 0.1}  # of each figure
_NPROBES = (8, 16, 32, 64, 128, 256, 512)
_WIDTH, _RECALL, _THREADS = 64, 0.95, 8
_SAME_RECALL = 0.01
_BLOCK = 1 << 17


def search(plan: GpuPlan, recorder: Recorder) -> None:
    """Build, choose the lists to search for a recall of 0.95, and time both sides."""
    count = _COUNTS.get((recorder.step.name, plan.size), _TOY_COUNT)
    vectors, questions = _vectors(plan, count)
    plan.say(f"exact search of {count:,} vectors")
    with faiss_threads(plan.threads):
        test = RecallTest.of_questions(vectors, questions)
    factory = factory_of("ivf-pq", *vectors.shape)
    plan.say(f"building {factory}")
    start = time.monotonic()
    faiss_index = _built(plan, vectors, factory)
    recorder.step.setting |= {
        "vectors": f"{count:,}", "index": factory, "built in": f"{time.monotonic() - start:.1f} s"
    }  # fmt: skip
    max_norm = _max_norm(vectors, plan.threads)
    nprobe = _enough_lists(plan, faiss_index, vectors, max_norm, test)
    faiss_index.nprobe = nprobe  # before it is copied: a copy keeps its own
    device_search, on_device = _device_search(plan, recorder, faiss_index, vectors)
    settings = {"nprobe": nprobe, "rerank_width": _WIDTH}
    sides = {name: VectorIndex(faiss_index, vectors, max_norm, settings) for name in ("CPU", "GPU")}
    worker = SearchWorker(device_search, most_selected=MOST_SELECTED)
    sides["GPU"].search_with(worker, on_device)
    candidates: dict[str, CandidateSearch] = {
        "CPU": lambda queries, width, lists: faiss_index.search(queries, width),
        "GPU": lambda queries, width, lists: device_search(queries, width, nprobe),
    }
    try:
        _measure(plan, recorder, sides, candidates, test, questions)
    finally:
        for index in sides.values():
            index.close()


def search_large(plan: GpuPlan, recorder: Recorder) -> None:
    """The same on ten million vectors: 15 GB of disk and of memory."""
    search(plan, recorder)


def _measure(
    plan: GpuPlan, recorder: Recorder, sides: dict[str, VectorIndex],
    candidates: dict[str, CandidateSearch], test: RecallTest, questions: FloatArray,
) -> None:  # fmt: skip
    nprobe = int(sides["CPU"].faiss_index.nprobe)
    table = Table(
        f"nprobe {nprobe}, {_WIDTH} candidates re-ranked, {plan.threads} threads on the CPU",
        ["", f"recall@{RECALL_AT}", "one: q/s", "one: median", f"{BATCH}: q/s", f"{BATCH}: median",
         f"{_THREADS} threads: q/s"],
    )  # fmt: skip
    recorder.step.tables.append(table)
    seconds, rates, recalls = _SECONDS[plan.size], {}, {}
    with faiss_threads(plan.threads):
        for side, index in sides.items():
            plan.say(f"searching on the {side}")
            recalls[side] = test.measure(index)
            for what, ask in {
                "FAISS alone": lambda queries, side=side: candidates[side](queries, _WIDTH, None),
                "with re-ranking": lambda queries, index=index: index.search(queries, RECALL_AT),
            }.items():
                whole = what != "FAISS alone"
                one, many = (_timed(ask, questions, batch, seconds) for batch in (1, BATCH))
                rates[side, what] = BATCH / percentile(many, 50)
                recorder.step.data[f"{side}, {what}"] = {"one": one, "batch": many}
                table.add(
                    f"{side}, {what}", f"{recalls[side]:.3f}" if whole else "",
                    f"{1 / percentile(one, 50):,.0f}", f"{1e3 * percentile(one, 50):.3f} ms",
                    f"{rates[side, what]:,.0f}", f"{1e3 * percentile(many, 50):.2f} ms",
                    f"{_threaded(ask, questions, seconds):,.0f}" if whole else "",
                )  # fmt: skip
                recorder.save()
    for what in ("FAISS alone", "with re-ranking"):
        ratio = rates["GPU", what] / rates["CPU", what]
        figure = Target.at_least(f"times the CPU, batch {BATCH}, {what}", TIMES_CPU, ratio)
        recorder.compare(figure, counts=plan.counts)
    difference = abs(recalls["GPU"] - recalls["CPU"])
    recorder.compare(Target.below("difference of their recalls", _SAME_RECALL, difference, ""))


def _vectors(plan: GpuPlan, count: int) -> tuple[HalfArray, FloatArray]:
    """Vectors fp16 [N, E] in the work folder, and questions float32 [Q, E] of the same distribution."""
    dimension = _DIMENSIONS[plan.size]
    clusters = Clusters(count, dimension)
    path = plan.work / f"vectors-{count}.npy"
    plan.say(f"drawing {count:,} vectors of {dimension} dimensions")
    partial = path.with_suffix(".partial")
    if not path.exists():
        clusters.write(partial, count, plan.threads)
        partial.replace(path)
    vectors: HalfArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors, clusters.questions(_QUESTIONS[plan.size])


def _built(plan: GpuPlan, vectors: HalfArray, factory: str) -> Any:
    """A FAISS index of ``vectors``, trained and filled on the GPU where there is one: seconds."""
    faiss_index = training.empty_faiss_index(factory, vectors.shape[1])
    if plan.device == "cpu":
        training.train(faiss_index, vectors, factory, 0, plan.threads, silent)
        training.add(faiss_index, vectors, factory, plan.threads, silent)
        return faiss_index
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise DeviceError(f"device is cuda, but this faiss {faiss.__version__} has no GPU support.")
    resources, options = faiss.StandardGpuResources(), faiss.GpuClonerOptions()
    options.useFloat16 = True  # lookup tables; 96 sub-quantisers need it
    options.use_cuvs = False
    on_gpu = faiss.index_cpu_to_gpu(resources, 0, faiss_index, options)
    rows = np.sort(
        np.random.default_rng(0).choice(
            len(vectors), training_count(faiss_index, len(vectors)), replace=False
        )
    )
    on_gpu.train(np.asarray(vectors[rows], np.float32))
    for start in range(0, len(vectors), _BLOCK):
        on_gpu.add(np.asarray(vectors[start : start + _BLOCK], np.float32))
    return faiss.index_gpu_to_cpu(on_gpu)


def _device_search(
    plan: GpuPlan, recorder: Recorder, faiss_index: Any, vectors: HalfArray
) -> tuple[CandidateSearch, DeviceVectors | None]:
    """A GPU's search of a copy of ``faiss_index`` and its copy of ``vectors``, which it scores.

    On a CPU the search of the index, to try this program out.
    """
    placement = where(faiss_index)
    recorder.step.notes.append(f"Placement: {placement}; {memory(placement.bytes)} on the device.")
    if placement.on_gpu and plan.device == "cuda":
        return GpuSearcher(faiss_index, placement).search, device_vectors(vectors, placement)
    if plan.device == "cuda":
        raise DeviceError(f"device is cuda, but the index is searched on the {placement}.")
    recorder.step.notes.append("Both sides are the CPU here; the GPU's goes through its worker all the same.")
    return lambda queries, width, lists: faiss_index.search(queries, width), None


def _enough_lists(
    plan: GpuPlan, faiss_index: Any, vectors: HalfArray, max_norm: float, test: RecallTest
) -> int:
    """The fewest lists that reach the recall after re-ranking; the most tried where none does."""
    nprobe = _NPROBES[0]
    with faiss_threads(plan.threads):
        for nprobe in (number for number in _NPROBES if number <= faiss_index.nlist):
            index = VectorIndex(faiss_index, vectors, max_norm, {"nprobe": nprobe, "rerank_width": _WIDTH})
            if test.measure(index) >= _RECALL:
                break
    return nprobe


def _timed(
    ask: Callable[[FloatArray], object], questions: FloatArray, batch: int, seconds: float
) -> list[float]:
    """Seconds of each search of ``batch`` questions, for some time, after a few that warm up."""
    batches = _batches(questions, batch)
    for _ in range(3):
        ask(next(batches))
    found: list[float] = []
    until = time.perf_counter() + seconds
    while not found or time.perf_counter() < until:
        queries = next(batches)
        start = time.perf_counter()
        ask(queries)
        found.append(time.perf_counter() - start)
    return found


def _threaded(ask: Callable[[FloatArray], object], questions: FloatArray, seconds: float) -> float:
    """Questions per second when several threads search one question at a time."""
    counts, go, until = [0] * _THREADS, threading.Barrier(_THREADS), [0.0]

    def asker(number: int) -> None:
        batches = _batches(questions[number:], 1)
        if not go.wait():
            until[0] = time.perf_counter() + seconds
        go.wait()
        while time.perf_counter() < until[0]:
            ask(next(batches))
            counts[number] += 1

    with ThreadPoolExecutor(_THREADS) as pool:
        start = time.perf_counter()
        list(pool.map(asker, range(_THREADS)))
        return sum(counts) / (time.perf_counter() - start)


def _batches(questions: FloatArray, size: int) -> Iterator[FloatArray]:
    """Batch after batch, from the beginning again and again."""
    if len(questions) < size:
        raise ValueError(f"{len(questions)} questions are fewer than a batch of {size}")
    while True:
        for start in range(0, len(questions) - size + 1, size):
            yield questions[start : start + size]


def _max_norm(vectors: HalfArray, threads: int) -> float:
    def of_block(start: int) -> float:
        block = np.asarray(vectors[start : start + 16384], np.float32)
        return float(np.sqrt(np.einsum("ke,ke->k", block, block).max()))

    with ThreadPoolExecutor(threads) as pool:
        return max(pool.map(of_block, range(0, len(vectors), 16384)))
