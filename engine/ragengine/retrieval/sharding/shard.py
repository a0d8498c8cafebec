"""What a shard answers, wherever it is, and the shard that is a folder of this machine."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.retrieval.candidates import Candidates, Plan, SearchFacts
from ragengine.retrieval.gpu.searcher import Device
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import manifest_fingerprint
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.storage.folders import Verify


class Shard(Protocol):
    """Some consecutive passages of an index, at least one, numbered 0, 1, ... in each shard.

    Safe to use from many threads.  What it raises is a :class:`RagEngineError` that names the shard.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def count(self) -> int:
        """The number of its passages."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies its content: that of its entry in ``shards.json``."""
        ...

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """What it proposes for questions, float32 [Q, E], which the caller has checked.

        ``plan`` is for the whole index: the shard proposes as many of its own, fewer where it has fewer.  All
        questions of a search come in one call, since FAISS's rounding depends on them.
        """
        ...

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order, repeated rows too."""
        ...

    def vectors(self, rows: RowArray) -> FloatArray:
        """The stored vectors of ``rows``, float32 [K, E]."""
        ...

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids`` that one of its passages has, ascending."""
        ...

    def matching_count(self, filter: PassageFilter) -> int:
        """How many of its passages match; 0 where none does."""
        ...

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """Which of its passages match, ascending."""
        ...

    def metadata_fields(self, most: int) -> list[str]:
        """The first ``most`` names of metadata that its passages have, in order."""
        ...

    def close(self) -> None:
        """Release what it holds; may be called again."""
        ...


class LocalShard:
    """A shard that is an index folder of this machine."""

    def __init__(self, index: PassageIndex) -> None:
        self.index = index
        self.fingerprint = manifest_fingerprint(index.manifest)

    @classmethod
    def open(cls, path: Path, *, verify: Verify = "sha256", device: Device = "cpu") -> "LocalShard":
        """Open the index folder ``path``, as :meth:`PassageIndex.open` does."""
        return cls(PassageIndex.open(path, verify=verify, device=device))

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"shard {self.index.path}"

    @property
    def count(self) -> int:
        """The number of its passages."""
        return self.index.count

    @property
    def facts(self) -> SearchFacts:
        """What decides how its vectors are searched."""
        return self.index._open_part().facts

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """As :meth:`Shard.candidates`."""
        return self.index.propose(questions, plan, filter)

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`Shard.passages`."""
        return self.index.passages(rows)

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`."""
        return self.index.vectors(rows)

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`."""
        return self.index.rows_of(ids)

    def matching_count(self, filter: PassageFilter) -> int:
        """As :meth:`Shard.matching_count`."""
        return self.index.filters.found(filter).count

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`."""
        return np.asarray(self.index.filters.found(filter).rows, np.int64)

    def metadata_fields(self, most: int) -> list[str]:
        """As :meth:`Shard.metadata_fields`."""
        return self.index.filters.fields(most)

    def close(self) -> None:
        """Close the index folder."""
        self.index.close()
