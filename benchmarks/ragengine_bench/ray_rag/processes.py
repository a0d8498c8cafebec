"""A training process, of whose steps only the retrieval call is made."""

import time
from collections.abc import Sequence

from ragengine.arrays import FloatArray, RowArray
from ragengine.runtime.memory import release_free_memory
from ragengine_bench.index.scale.watch import anonymous_bytes
from ragengine_bench.ray_rag.designs import Design, Searched


class TrainingProcess:
    """Retrieves in a loop, as process ``rank``, by one design after another."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._searched: Searched | None = None
        self._before = 0

    def join(self, design: Design, world: int, turn: int) -> None:
        """Be one of ``world`` processes of a design from now on."""
        self._searched = None
        release_free_memory()
        self._before = anonymous_bytes()
        self._searched = design.join(self._rank, world, turn)

    def taken(self) -> int:
        """The anonymous bytes that this process has taken since it joined."""
        return anonymous_bytes() - self._before

    def found(self, questions: FloatArray, n_docs: int) -> RowArray:
        """The rows [Q, D] of the documents of questions [Q, E]."""
        assert self._searched is not None
        return self._searched.get_top_docs(questions, n_docs)[0]

    def retrieve(self, batches: Sequence[FloatArray], n_docs: int) -> list[float]:
        """The seconds of a call for each batch: rows, vectors and texts, as ``RagRetriever.retrieve``.

        Each process begins with another batch.
        """
        assert self._searched is not None
        seconds = []
        for number in range(len(batches)):
            batch = batches[(number + self._rank) % len(batches)]
            start = time.perf_counter()
            rows, _ = self._searched.get_top_docs(batch, n_docs)
            self._searched.get_doc_dicts(rows)
            seconds.append(time.perf_counter() - start)
        return seconds
