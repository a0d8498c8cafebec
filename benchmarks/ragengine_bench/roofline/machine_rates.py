"""What this machine does at best, measured in the run that is compared with it.

GEMM rate: a graph of one linear layer (:mod:`.linear_graph`), the best of several row counts and repeats.

Bandwidth: arrays larger than the caches.  Copying counts what is read and what is written.  Weights are only
read, so reading is measured too (the largest element of an array); the faster of the two is the bandwidth.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ragengine.runtime.sessions import InferenceSession, create_session

ROWS = (256, 1024)  # what a graph reads at once
SECONDS = 0.5  # of each measurement
ARRAY_BYTES = 1 << 27  # of each thread; several times a large cache


class MachineRates:
    """Measures in a process of its own, as every engine does."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def gemm(self, graph: str) -> float:
        """Operations (two for a multiplication and an addition) a second, of ``graph``."""
        session = create_session(Path(graph), device="cpu", threads=self._threads)
        return max(_gemm(session, rows) for rows in ROWS)

    def bandwidth(self) -> dict[str, float]:
        """Bytes a second when copying (reads and writes counted) and when only reading."""
        count = ARRAY_BYTES // 4
        sources = [np.ones(count, np.int32) for _ in range(self._threads)]
        targets = [np.zeros(count, np.int32) for _ in range(self._threads)]

        with ThreadPoolExecutor(self._threads) as pool:
            copied = best(lambda: list(pool.map(np.copyto, targets, sources)))
            read = best(lambda: list(pool.map(np.max, sources)))
        total = ARRAY_BYTES * self._threads
        return {"copy": 2 * total / copied, "read": total / read}


def _gemm(session: InferenceSession, rows: int) -> float:
    (_, k), (_, n) = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    x = np.random.default_rng(0).standard_normal((rows, k), np.float32)
    operations: float = 2 * rows * k * n
    return operations / best(lambda: session.run(["y"], {"x": x}))


def best(run: Callable[[], object]) -> float:
    """The fewest seconds of many runs: a roofline is made of the best rate that was seen.

    The runs last long enough that a busy machine has a quiet moment.
    """
    run()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < until:
        run()
        best = min(best, time.perf_counter() - start)
    return best
