"""A shard that a search may go on without."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ShardError
from ragengine.messages import log
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.asking import current_search
from ragengine.retrieval.sharding.breaker import Breaker, Health
from ragengine.retrieval.sharding.shard import Shard

T = TypeVar("T")


class PartialShard:
    """A shard that a search may go on without.

    Where it does not answer it has nothing, and is noted as missing until the end of that search.  A
    search that keeps no note gets the error.  After that a :class:`Breaker` says when it is asked again, and
    until then it is missing at once.  A refusal comes without a wait, so the next question asks again.
    """

    def __init__(self, shard: Shard, breaker: Breaker) -> None:
        self._shard, self._breaker = shard, breaker

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

    @property
    def health(self) -> Health:
        """Whether it is asked now."""
        return self._breaker.health

    def asked(self, call: Callable[[], T]) -> T:
        """What ``call`` of the shard returns; the breaker lets it through or not, and hears of the outcome.

        Raises:
            ShardError: the shard does not answer, or did not lately.
        """
        permit = self._breaker.admit()
        if permit is None:
            raise self._resting()
        try:
            found = call()
        except ShardError as reason:
            log.warning("Searched without it: %s", reason)
            if reason.refused:
                self._breaker.succeeded(permit)
            else:
                self._breaker.failed(permit, str(reason))
            raise
        except BaseException:
            self._breaker.ended(permit)
            raise
        self._breaker.succeeded(permit)
        return found

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
        missing = current_search().missing
        if missing is None:
            return self._required(lambda: self._shard.passages(rows))
        try:
            return self.asked(lambda: self._shard.passages(rows))
        except ShardError:
            missing.add(self.name)
            raise

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`; never without them."""
        return self._required(lambda: self._shard.vectors(rows))

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`; never without them."""
        return self._required(lambda: self._shard.rows_of(ids))

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`; never without them."""
        return self._required(lambda: self._shard.matching_rows(filter))

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()

    def _or(self, call: Callable[[], T], nothing: T) -> T:
        missing = current_search().missing
        if missing is None:
            return self._required(call)
        if self.name in missing:
            return nothing
        try:
            return self.asked(call)
        except ShardError:
            missing.add(self.name)
            return nothing

    def _required(self, call: Callable[[], T]) -> T:
        """Ask for what a call cannot do without, unless it would wait in vain.

        The breaker does not hear of it: such calls are long, and the shard may answer shorter ones in time.
        """
        if self._breaker.health.state == "open":
            raise self._resting()
        return call()

    def _resting(self) -> ShardError:
        health = self._breaker.health
        return ShardError(
            f"The {self.name} is asked again in {health.seconds:.1f} s, since it did not answer "
            f"{health.failures} times in a row: {health.reason}",
            self.name,
        )
