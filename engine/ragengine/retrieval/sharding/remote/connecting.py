"""From the entries of ``shards.json`` to shards that answer over HTTP."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ShardError
from ragengine.messages import log
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.asking import current_search
from ragengine.retrieval.sharding.manifest import ShardEntry
from ragengine.retrieval.sharding.remote.network import Network
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.shard import RemoteShard
from ragengine.retrieval.sharding.shard import Shard

T = TypeVar("T")


def connector(options: RemoteOptions, *, allow_partial: bool) -> Callable[[ShardEntry, int, int], Shard]:
    """What makes the shards of one index out of their entries, numbers and the vectors' dimension.

    A server of each is asked whether it has the index that its entry names.  With ``allow_partial`` one that
    does not answer is a warning in the log, and a search goes on without it (:class:`PartialShard`).

    Raises:
        ShardError: when called, a shard does not answer, or from another index.
    """
    network = Network()

    def connect(entry: ShardEntry, number: int, dimension: int) -> Shard:
        name = f"shard {number} ({', '.join(entry.addresses)})"
        shard = RemoteShard(
            name, entry.fingerprint or "", entry.count, dimension, entry.addresses, network, options
        )
        try:
            shard.info()
        except ShardError as reason:
            if not allow_partial:
                shard.close()
                raise
            log.warning("%s", reason)
        return PartialShard(shard) if allow_partial else shard

    return connect


class PartialShard:
    """A shard that a search may go on without.

    Where it does not answer it has nothing, and is noted as missing until the end of that search.  A
    search that keeps no note gets the error.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    @property
    def name(self) -> str:
        """As :meth:`Shard.name`."""
        return self._shard.name

    @property
    def count(self) -> int:
        """As :meth:`Shard.count`."""
        return self._shard.count

    @property
    def fingerprint(self) -> str:
        """As :meth:`Shard.fingerprint`."""
        return self._shard.fingerprint

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """As :meth:`Shard.candidates`; none where it is missing."""
        nothing = Candidates.none(len(questions))
        return self._or(lambda: self._shard.candidates(questions, plan, filter), nothing)

    def matching_count(self, filter: PassageFilter) -> int:
        """As :meth:`Shard.matching_count`; 0 where it is missing."""
        return self._or(lambda: self._shard.matching_count(filter), 0)

    def metadata_fields(self, most: int) -> list[str]:
        """As :meth:`Shard.metadata_fields`; none where it is missing."""
        return self._or(lambda: self._shard.metadata_fields(most), [])

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`Shard.passages`; the error where it is missing: what was found has to be found again."""
        try:
            return self._shard.passages(rows)
        except ShardError:
            missing = current_search().missing
            if missing is not None:
                missing.add(self.name)
            raise

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`; never without them."""
        return self._shard.vectors(rows)

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`; never without them."""
        return self._shard.rows_of(ids)

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`; never without them."""
        return self._shard.matching_rows(filter)

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()

    def _or(self, call: Callable[[], T], nothing: T) -> T:
        missing = current_search().missing
        if missing is None:
            return call()
        if self.name in missing:
            return nothing
        try:
            return call()
        except ShardError as reason:
            log.warning("Searched without it: %s", reason)
            missing.add(self.name)
            return nothing
