"""The corpus of a scale run: short passages in a file, and vectors that are made when they are read."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ragengine.arrays import FloatArray
from ragengine_bench.index.synthetic_vectors import BLOCK, Clusters


class ScaleData:
    """``count`` passages with the vectors of ``ragengine bench index``; the same for the same arguments.

    Block b of the vectors has a seed of its own, so that they can be made from any row on and no file needs
    to hold them all.
    """

    def __init__(self, count: int, dimension: int, threads: int = 1) -> None:
        self.count, self.dimension = count, dimension
        self._clusters, self._threads = Clusters(count, dimension), threads

    def write_passages(self, path: Path) -> None:
        """Write the passages as a table of id, text and title."""
        with path.open("w", encoding="utf-8") as file:
            file.write("id\ttext\ttitle\n")
            for row in range(self.count):
                file.write(f"p{row}\tPassage {row} of a synthetic corpus.\tTitle {row % 9973}\n")

    def embeddings(self, first: int) -> Iterator[FloatArray]:
        """The vectors from row ``first`` on, in blocks of up to 16,384 rows, float32 [rows, E]."""
        blocks = range(first // BLOCK, -(-self.count // BLOCK))
        skipped = first % BLOCK
        with ThreadPoolExecutor(self._threads) as pool:
            waiting: list[Future[FloatArray]] = []
            for block in blocks:
                waiting.append(pool.submit(self._block, block))
                if len(waiting) > self._threads:
                    yield waiting.pop(0).result()[skipped:]
                    skipped = 0
            for drawn in waiting:
                yield drawn.result()[skipped:]
                skipped = 0

    def questions(self, count: int) -> FloatArray:
        """Further draws from the same distribution, float32 [Q, E]."""
        return self._clusters.questions(count)

    def _block(self, block: int) -> FloatArray:
        return self._clusters.draw(min(BLOCK, self.count - block * BLOCK), 1 + block)
