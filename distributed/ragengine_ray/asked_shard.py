"""A shard that a process elsewhere in the cluster holds, as :class:`ShardedIndex` searches it."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.manifest import ShardEntry

ASKED: Final = frozenset(
    {
        "candidates",
        "passages",
        "vectors",
        "rows_of",
        "matching_count",
        "matching_rows",
        "metadata_fields",
    }
)
"""The methods of a :class:`~ragengine.retrieval.sharding.shard.Shard` that are asked over the cluster."""


class AskedShard:
    """A :class:`~ragengine.retrieval.sharding.shard.Shard` whose methods another process computes."""

    def __init__(self, name: str, entry: ShardEntry, ask: Callable[..., Any]) -> None:
        """``ask(method, *arguments)`` returns what a method of :data:`ASKED` returns there."""
        self.name, self.count, self.fingerprint = name, entry.count, entry.fingerprint or ""
        self._ask = ask

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """As :meth:`Shard.candidates`."""
        found: Candidates = self._ask("candidates", questions, plan, filter)
        return found

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`Shard.passages`."""
        found: list[Passage] = self._ask("passages", list(rows))
        return found

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`."""
        found: FloatArray = self._ask("vectors", rows)
        return found

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`."""
        found: dict[str, list[int]] = self._ask("rows_of", list(ids))
        return found

    def matching_count(self, filter: PassageFilter) -> int:
        """As :meth:`Shard.matching_count`."""
        found: int = self._ask("matching_count", filter)
        return found

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`."""
        found: RowArray = self._ask("matching_rows", filter)
        return found

    def metadata_fields(self, most: int) -> list[str]:
        """As :meth:`Shard.metadata_fields`."""
        found: list[str] = self._ask("metadata_fields", most)
        return found

    def close(self) -> None:
        """Nothing: the process that holds the shard lives on."""
