"""Any number of vectors to measure indexes on, clustered as embeddings of passages are.

Independent random numbers would be wrong: all are about equally far from each other, and no index finds
anything among them faster than reading all.  Embeddings of passages crowd in topics of very
different sizes, vary in few directions around each, and share a direction.  So a vector is

    norm · unit( 0.7 · common + topic + 0.9 · around + 0.25 · noise )

* ``topic``: one of 4·√N unit vectors, the k-th drawn with a probability of 1/k^0.8 (a heavy tail: the largest
  has thousands of times the share of the smallest).  They lie in a space where direction i varies by 1/i, so
  that topics have neighbours of their own.
* ``around``: 24 of 256 directions vary around a topic, others around the next; intrinsic dimension about 24.
* ``noise``: in all dimensions, of norm 1 as every other part before its factor.
* ``norm``: log-normal around 9 with a deviation of 5 %, about what DPR's passage encoder gives; so inner
  product and cosine rank differently.

Questions are further draws from the same distribution, never copies of vectors that are searched.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, HalfArray

BLOCK = 16384
"""Rows that are drawn together, with a seed of their own."""
_DIRECTIONS, _VARYING = 256, 24
_SIZE_EXPONENT = 0.8
_COMMON, _AROUND, _NOISE = 0.7, 0.9, 0.25
_NORM, _NORM_DEVIATION = 9.0, 0.05


class Clusters:
    """The distribution: topics and directions drawn once with ``seed``, for about ``count`` vectors."""

    def __init__(self, count: int, dimension: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.dimension, self.seed = dimension, seed
        topics = max(1, round(4 * count**0.5))
        spectrum = 1 / np.arange(1, dimension + 1)
        basis = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
        self._common = basis[:, -1]
        self._topics = _units((random.standard_normal((topics, dimension)) * spectrum**0.5) @ basis.T)
        self._directions = _units(random.standard_normal((_DIRECTIONS, dimension)))
        chosen = np.argsort(random.random((topics, _DIRECTIONS)), axis=1)[:, :_VARYING]
        self._varying = np.zeros((topics, _DIRECTIONS), np.float32)
        np.put_along_axis(self._varying, chosen, np.float32(_VARYING**-0.5), axis=1)
        shares = np.arange(1, topics + 1) ** -_SIZE_EXPONENT
        self._shares = np.cumsum(shares / shares.sum())

    def draw(self, count: int, block: int) -> FloatArray:
        """``count`` vectors, float32 [N, E]; the same for the same number of ``block``, other for others."""
        random = np.random.default_rng([self.seed, block])
        topics = np.minimum(np.searchsorted(self._shares, random.random(count)), len(self._topics) - 1)
        amounts = random.standard_normal((count, _DIRECTIONS), np.float32) * self._varying[topics]
        noise = random.standard_normal((count, self.dimension), np.float32) * self.dimension**-0.5
        vectors = self._topics[topics] + _COMMON * self._common
        vectors += _AROUND * (amounts @ self._directions.astype(np.float32)) + _NOISE * noise
        norms = _NORM * np.exp(_NORM_DEVIATION * random.standard_normal(count))
        return np.asarray(_units(vectors) * norms[:, None], np.float32)

    def write(self, path: Path, count: int, threads: int = 1) -> HalfArray:
        """Write ``count`` vectors as fp16 [N, E] into a new ``.npy`` file, block by block, and map it.

        They are the same for every number of ``threads``.
        """
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, self.dimension))

        def write_block(start: int) -> None:
            rows = min(BLOCK, count - start)
            stored[start : start + rows] = self.draw(rows, 1 + start // BLOCK)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write_block, range(0, count, BLOCK)))
        stored.flush()
        return stored

    def questions(self, count: int) -> FloatArray:
        """Questions, float32 [Q, E], from a block of their own."""
        return self.draw(count, 0)


def _units(vectors: NDArray[Any]) -> NDArray[Any]:
    units: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units
