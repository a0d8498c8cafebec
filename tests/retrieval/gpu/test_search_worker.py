"""The thread that searches a GPU index, here over a real one on the CPU: batches, errors, the end."""

import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import ClosedError, DeviceError, ProcessError
from ragengine.retrieval.faiss_api import search_parameters
from ragengine.retrieval.gpu import searcher as gpu
from ragengine.retrieval.gpu.placement import Placement
from ragengine.retrieval.gpu.search_worker import Found, SearchWorker
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, random_vectors

N, WIDE = 800, 16
STORED = random_vectors(N, WIDE).astype(np.float16)


def vector_index(factory: str = "IVF8,Flat") -> VectorIndex:
    wide = STORED.astype(np.float32)
    faiss_index = faiss.index_factory(WIDE, factory, faiss.METRIC_INNER_PRODUCT)
    if "OPQ" in factory:
        faiss.downcast_VectorTransform(faiss_index.chain.at(0)).niter = 2  # the tests need no good rotation
    faiss_index.train(wide)
    faiss_index.add(wide)
    return VectorIndex(faiss_index, STORED, float(np.linalg.norm(wide, axis=1).max()), {})


@dataclasses.dataclass
class Searcher:
    """A search of a real index that notes what it is asked and can be held up."""

    index: Any
    asked: list[tuple[int, int, int | None]] = dataclasses.field(default_factory=list)
    go: threading.Event = dataclasses.field(default_factory=threading.Event)
    threads: set[int] = dataclasses.field(default_factory=set)

    def search(self, questions: Array, width: int, nprobe: int | None) -> Found:
        self.threads.add(threading.get_ident())
        self.asked.append((len(questions), width, nprobe))
        assert self.go.wait(20)
        if np.isnan(questions).any():
            raise DeviceError("not a number")
        return self.index.search(questions, width, params=search_parameters(self.index, nprobe))


@pytest.fixture
def searcher() -> Searcher:
    made = Searcher(vector_index().faiss_index)
    made.go.set()
    return made


@pytest.fixture
def worker(searcher: Searcher) -> Iterator[SearchWorker]:
    worker = SearchWorker(searcher.search, most_selected=2048)
    yield worker
    searcher.go.set()
    worker.close()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(worker: SearchWorker) -> int:
    return len(worker._queue._waiting)


# --- many askers --------------------------------------------------------------------------------------


def test_everybody_gets_his_own_result(worker: SearchWorker, searcher: Searcher) -> None:
    def ask(number: int) -> bool:
        questions = random_vectors(1 + number % 3, WIDE, seed=number)
        width, nprobe = 3 + number % 4, (None, 2, 8)[number % 3]
        scores, rows = worker(questions, width, nprobe)
        alone = searcher.index.search(questions, width, params=search_parameters(searcher.index, nprobe))
        np.testing.assert_allclose(scores, alone[0], rtol=1e-5)
        return bool((rows == alone[1]).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))
    assert len(searcher.threads) == 1


def test_what_waits_is_searched_together_where_it_can_be(worker: SearchWorker, searcher: Searcher) -> None:
    searcher.go.clear()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(worker, random_vectors(1, WIDE), 1, None)]
        wait_until(lambda: len(searcher.asked) == 1)
        for questions, width, nprobe in [(2, 5, 4), (1, 5, 4), (1, 6, 4), (3, 5, 4), (1, 5, None), (1, 6, 4)]:
            before = waiting(worker)
            asked.append(pool.submit(worker, random_vectors(questions, WIDE), width, nprobe))
            wait_until(lambda: waiting(worker) > before)  # noqa: B023  # the loop waits for it
        searcher.go.set()
        shapes = [future.result(20)[1].shape for future in asked]
    assert searcher.asked == [(1, 1, None), (6, 5, 4), (2, 6, 4), (1, 5, None)]
    assert shapes == [(1, 1), (2, 5), (1, 5), (1, 6), (3, 5), (1, 5), (1, 6)]


def test_batches_have_a_limit_and_one_large_question_set_is_no_obstacle(searcher: Searcher) -> None:
    worker = SearchWorker(searcher.search, most_selected=2048, batch_questions=4)
    searcher.go.clear()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(worker, random_vectors(1, WIDE), 2, None)]
        wait_until(lambda: len(searcher.asked) == 1)
        for questions in (3, 2, 1, 9, 1):
            before = waiting(worker)
            asked.append(pool.submit(worker, random_vectors(questions, WIDE), 2, None))
            wait_until(lambda: waiting(worker) > before)  # noqa: B023
        searcher.go.set()
        assert [len(future.result(20)[1]) for future in asked] == [1, 3, 2, 1, 9, 1]
    worker.close()
    assert [questions for questions, _, _ in searcher.asked] == [1, 4, 3, 9]


def test_the_queue_is_bounded(searcher: Searcher) -> None:
    worker = SearchWorker(searcher.search, most_selected=2048, most_waiting=2)
    searcher.go.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(worker, random_vectors(1, WIDE), 1 + number, None) for number in range(8)]
        wait_until(lambda: waiting(worker) == 2)
        time.sleep(0.05)
        assert waiting(worker) == 2
        searcher.go.set()
        assert sorted(future.result(20)[1].shape[1] for future in asked) == list(range(1, 9))
    worker.close()


# --- errors -------------------------------------------------------------------------------------------


def test_an_error_is_its_askers_alone(worker: SearchWorker, searcher: Searcher) -> None:
    bad = np.full((1, WIDE), np.nan, np.float32)
    searcher.go.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(worker, random_vectors(1, WIDE), 2, None)
        wait_until(lambda: len(searcher.asked) == 1)
        asked = [
            pool.submit(worker, q, 2, None) for q in (random_vectors(1, WIDE), bad, random_vectors(2, WIDE))
        ]
        wait_until(lambda: waiting(worker) == 3)
        searcher.go.set()
        assert len(first.result(20)[1]) == len(asked[0].result(20)[1]) == 1
        assert len(asked[2].result(20)[1]) == 2
        with pytest.raises(DeviceError, match="not a number"):
            asked[1].result(20)
    assert searcher.asked[1][0] == 4  # together, then each alone
    assert len(worker(random_vectors(1, WIDE), 2, None)[1]) == 1


def test_an_asker_that_is_interrupted_leaves_the_queue(worker: SearchWorker, searcher: Searcher) -> None:
    searcher.go.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(worker, random_vectors(1, WIDE), 1, None)
        wait_until(lambda: len(searcher.asked) == 1)
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            worker(random_vectors(1, WIDE), 7, None)
        searcher.go.set()
        first.result(20)
    worker(random_vectors(1, WIDE), 3, None)
    assert [width for _, width, _ in searcher.asked] == [1, 3]


# --- the end ------------------------------------------------------------------------------------------


def test_closing_finishes_what_waits_and_refuses_the_rest(worker: SearchWorker, searcher: Searcher) -> None:
    searcher.go.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(worker, random_vectors(1, WIDE), 1 + number, None) for number in range(4)]
        wait_until(lambda: waiting(worker) == 3)
        closing = pool.submit(worker.close)
        wait_until(lambda: worker._queue._closed)
        with pytest.raises(ClosedError, match="The index was closed; open it again"):
            worker(random_vectors(1, WIDE), 1, None)
        assert not closing.done()
        searcher.go.set()
        assert len([future.result(20) for future in asked]) == 4
        closing.result(20)
    assert not worker._thread.is_alive()
    worker.close()


def test_the_copy_is_let_go_with_the_thread() -> None:
    copy = Searcher(vector_index().faiss_index)
    held = weakref.ref(copy)
    worker = SearchWorker(copy.search, most_selected=2048)
    del copy
    gc.collect()
    assert held() is not None
    worker.close()
    gc.collect()
    assert held() is None


def test_a_worker_that_nobody_closed_ends() -> None:
    index = vector_index().faiss_index

    def made() -> threading.Thread:
        worker = SearchWorker(lambda q, width, nprobe: index.search(q, width), most_selected=2048)
        assert worker(random_vectors(1, WIDE), 2, None)[1].shape == (1, 2)
        return worker._thread

    thread = made()
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def _ask_in_child(worker: SearchWorker, answers: Any) -> None:
    try:
        worker(random_vectors(1, WIDE), 1, None)
    except ProcessError as error:
        answers.put(str(error))
    worker.close()


def test_a_fork_is_refused_with_words(worker: SearchWorker) -> None:
    worker(random_vectors(1, WIDE), 1, None)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_ask_in_child, args=(worker, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a fork of threads is unwise is the point
        child.start()
    assert f"was loaded in process {os.getpid()} and cannot be used in its fork" in answers.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0


# --- behind an index ----------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "OPQ8_8,IVF8,PQ8x4"])
def test_an_index_finds_the_same_through_a_worker(factory: str) -> None:
    plain, served = vector_index(factory), vector_index(factory)
    copy = Searcher(faiss.clone_index(served.faiss_index))
    copy.go.set()
    served.search_with(SearchWorker(copy.search, most_selected=100))
    settings = [{"rerank_width": 40}, {}] + [{"nprobe": n} for n in (1, 5, 8) if factory != "Flat"]
    for chosen in settings:
        for n_docs in (1, 5, 30):
            questions = random_vectors(9, WIDE, seed=n_docs)
            expected, found = (
                plain.search(questions, n_docs, **chosen),
                served.search(questions, n_docs, **chosen),
            )
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)
    assert copy.asked
    asked = len(copy.asked)
    assert served.search(random_vectors(1, WIDE), 101).rows.shape == (1, 101)
    assert len(copy.asked) == asked  # more than the device selects: the index itself
    served.close()
    served.close()


def test_ties_beyond_what_a_device_selects_are_still_exact(caplog: pytest.LogCaptureFixture) -> None:
    stored = np.ones((300, 4), np.float16)
    flat = faiss.IndexFlatIP(4)
    flat.add(stored.astype(np.float32))
    index = VectorIndex(flat, stored, 2.0, {})
    copy = Searcher(faiss.clone_index(flat))
    copy.go.set()
    index.search_with(SearchWorker(copy.search, most_selected=64))
    assert index.search(np.ones((1, 4), np.float32), 5).rows.tolist() == [[0, 1, 2, 3, 4]]
    assert [width for _, width, _ in copy.asked] == [21]
    assert (
        "Searched on the CPU: 84 candidates in the usual lists, the device selects at most 64" in caplog.text
    )
    index.close()


def test_a_closed_folder_closes_its_worker(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PassageIndex.open(device=...)` as on a machine with a GPU, the copy on it being one on the CPU."""

    class CpuCopy(gpu.GpuSearcher):
        def __init__(self, faiss_index: Any, placement: Placement) -> None:
            self._cpu_index = faiss_index
            self._index = faiss.clone_index(faiss_index)

    path = build(random_vectors(40))
    monkeypatch.setattr("ragengine.retrieval.vector_index.where", lambda index: Placement("gpu", "a test"))
    monkeypatch.setattr("ragengine.retrieval.vector_index.GpuSearcher", CpuCopy)
    with PassageIndex.open(path) as plain, PassageIndex.open(path, device="cuda") as served:
        assert (plain.placement.kind, str(served.placement)) == ("cpu", "GPU 0: a test")
        questions = random_vectors(5, seed=3)
        np.testing.assert_array_equal(served.search(questions, 3).rows, plain.search(questions, 3).rows)
        assert sum(thread.name == "ragengine-search" for thread in threading.enumerate()) == 1
    assert not any(thread.name == "ragengine-search" for thread in threading.enumerate())


def test_where_the_copy_fails_auto_takes_the_cpu_and_cuda_says_why(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class OutOfMemory(gpu.GpuSearcher):
        def __init__(self, faiss_index: Any, placement: Placement) -> None:
            with gpu._device_errors("was copied to the GPU"):
                raise RuntimeError(
                    "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(const "
                    "faiss::gpu::AllocRequest&) at /x/StandardGpuResources.cpp:530: Error: 'err == "
                    "cudaSuccess' failed: cudaMalloc error out of memory [2]"
                )

    path = build(random_vectors(40))
    monkeypatch.setattr("ragengine.retrieval.vector_index.where", lambda index: Placement("gpu", "a test"))
    monkeypatch.setattr("ragengine.retrieval.vector_index.GpuSearcher", OutOfMemory)
    with pytest.raises(DeviceError, match=r"was copied to the GPU: .*out of memory") as error:
        PassageIndex.open(path, device="cuda")
    assert "StandardGpuResources.cpp" not in str(error.value)
    with caplog.at_level("INFO", "ragengine"), PassageIndex.open(path, device="auto") as opened:
        assert opened.placement.kind == "cpu"
        assert len(opened.search(random_vectors(2), 3).rows) == 2
    assert "The index is searched on the CPU: faiss failed" in caplog.text
