"""`RemoteShard`: a shard of an index that servers have, ``ragengine serve --shard``, here or elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ShardError
from ragengine.messages import one_line
from ragengine.retrieval.candidates import Candidates, Plan, SearchFacts
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.asking import current_search
from ragengine.retrieval.sharding.manifest import ShardEntry
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.addresses import Address
from ragengine.retrieval.sharding.remote.connection import Response
from ragengine.retrieval.sharding.remote.messages import MOST_ROWS
from ragengine.retrieval.sharding.remote.network import Network
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.replicas import Failed, Refused, Replicas
from ragengine.retrieval.sharding.remote.wire import MAX_MESSAGE_BYTES, MEDIA_TYPE
from ragengine.storage.schema import Count, Hash, Size, join_errors, parse
from ragengine.storage.strict_json import parse_json

T = TypeVar("T")
_BYTES: Final = MAX_MESSAGE_BYTES - (1 << 20)  # of a message's arrays, beside its head


@dataclass(frozen=True)
class ShardInfo:
    """What ``GET /v1/shard`` says of the index that a server has.

    index              the fingerprint of its content (:func:`manifest_fingerprint`)
    count              its passages
    dimension          the components of its vectors
    """

    index: Hash
    count: Count
    dimension: Size


class RemoteShard:
    """A shard over HTTP.  Safe to use from many threads; one :class:`Network` serves many shards.

    Every answer is of the index with the expected fingerprint, or :class:`ShardError`.
    """

    def __init__(
        self,
        name: str,
        entry: ShardEntry,
        facts: SearchFacts,
        network: Network,
        options: RemoteOptions,
    ) -> None:
        """No connection is made yet.

        Args:
            name: what messages call the shard.
            entry: its fingerprint, which has to answer, its passages and its servers.
            facts: of the whole index: answers that these rule out are refused.
            network: the thread that talks to the servers; it ends with the last shard that is closed.
            options: how they are asked.

        Raises:
            ShardError: there is no address, or one that is none.
            InputError: the key or the certificates cannot be read.
        """
        self.name, self.fingerprint, self.count = name, entry.fingerprint or "", entry.count
        self.addresses, self._facts = entry.addresses, facts
        try:
            found = [Address.of(text) for text in entry.addresses]
        except ValueError as reason:
            raise self._error(f"has an address that cannot be used: {reason}") from reason
        if not found:
            raise self._error("has no address")
        key = options.key()
        self._headers = {"Content-Type": MEDIA_TYPE, messages.INDEX_HEADER: self.fingerprint}
        self._headers |= {} if key is None else {"Authorization": f"Bearer {key}"}
        self._replicas = Replicas(found, options, MAX_MESSAGE_BYTES)
        self._network, self._closed = network, False
        network.retain()

    def info(self) -> ShardInfo:
        """What a server of the shard says of its index; raises as :meth:`candidates`."""
        return self._ask("GET", messages.SHARD_PATH, b"", self._read_info)

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """As :meth:`Shard.candidates`; questions beyond the longest message are asked in several requests.

        Raises:
            ShardError: no replica answered in time.
            DeadlineError, CancelledError: the question that is asked is to end.
        """
        if not len(questions):
            return Candidates.none(0)
        width = min(plan.width, self.count)
        step = min(
            _BYTES // (4 * self._facts.dimension), _BYTES // (messages.BYTES_A_CANDIDATE * max(1, width))
        )
        # Lists that are searched may have fewer candidates, and so may passages that match.
        full = filter is None and (plan.every or self._facts.structure.lists is None)
        parts = []
        for start in range(0, len(questions), step):
            some = questions[start : start + step]

            def read(body: bytes, some: FloatArray = some) -> Candidates:
                return messages.read_search_reply(
                    body, some, width, self.count, full=full, max_norm=self._facts.max_norm
                )

            parts.append(self._call("search", messages.search_request(some, plan, filter), read))
        return parts[0] if len(parts) == 1 else _stacked(parts)

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`Shard.passages`; raises as :meth:`candidates`."""
        found: list[Passage] = []
        for some in _pieces(rows):

            def read(body: bytes, asked: int = len(some)) -> list[Passage]:
                return messages.read_passages_reply(body, asked)

            found += self._call("passages", messages.rows_message(some), read)
        return found

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`; raises as :meth:`candidates`."""
        dimension = self._facts.dimension
        found = [np.empty((0, dimension), np.float32)]
        for some in _pieces(rows):

            def read(body: bytes, asked: int = len(some)) -> FloatArray:
                return messages.read_vectors_reply(body, (asked, dimension))

            found.append(self._call("vectors", messages.rows_message(some), read))
        return np.concatenate(found)

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`; raises as :meth:`candidates`."""

        wanted = list(ids)

        def read(body: bytes) -> dict[str, list[int]]:
            return messages.read_rows_of_reply(body, self.count, wanted)

        return self._call("rows-of", messages.texts_message(wanted), read)

    def matching_count(self, filter: PassageFilter) -> int:
        """As :meth:`Shard.matching_count`; raises as :meth:`candidates`."""

        def read(body: bytes) -> int:
            return messages.read_number(body, self.count)

        return self._call("matching-count", messages.filter_request(filter), read)

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`; raises as :meth:`candidates`."""

        def read(body: bytes) -> RowArray:
            return messages.read_matching_rows(body, self.count)

        return self._call("matching-rows", messages.filter_request(filter), read)

    def metadata_fields(self, most: int) -> list[str]:
        """As :meth:`Shard.metadata_fields`; raises as :meth:`candidates`."""
        return self._call("fields", messages.number_message(most), messages.read_texts)[:most]

    def close(self) -> None:
        """Close its connections; may be called again."""
        if not self._closed:
            self._closed = True
            self._network.run(self._replicas.close())
            self._network.release()

    def _call(self, name: str, body: bytes, read: Callable[[bytes], T]) -> T:
        return self._ask("POST", f"{messages.SHARD_PATH}/{name}", body, read)

    def _ask(self, method: str, path: str, body: bytes, read: Callable[[bytes], T]) -> T:
        def checked(response: Response) -> T:
            if response.status != 200:
                raise Refused(_refusal(response))
            if response.index != self.fingerprint:
                raise Refused(
                    f"it answers from another index ({response.index[:12] or 'it does not say which'}, not "
                    f"{self.fingerprint[:12]})"
                )
            try:
                return read(response.body)
            except (ValueError, RecursionError) as reason:
                raise Refused(f"its answer cannot be used, since {one_line(reason)}") from reason

        asked = current_search()
        asked.stop.check("before a shard was asked")
        try:
            work = self._replicas.ask((method, path, self._headers, body), checked)
            return self._network.run(work, asked.stop)
        except Failed as reason:
            raise self._error(f"does not answer: {reason}", refused=reason.refused) from reason

    def _read_info(self, body: bytes) -> ShardInfo:
        parsed = parse(ShardInfo, parse_json(body.decode("utf-8")))
        if parsed.value is None:
            raise ValueError(join_errors(parsed.errors))
        info = parsed.value
        if info != ShardInfo(self.fingerprint, self.count, self._facts.dimension):
            raise ValueError(f"its index has {info.count} vectors of {info.dimension}")
        return info

    def _error(self, what: str, *, refused: bool = False) -> ShardError:
        return ShardError(
            f"The {self.name} {what}; start its servers, or allow partial answers.",
            self.name,
            self.addresses,
            refused=refused,
        )


def _stacked(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of successive questions as one; lists that are shorter get absent ones."""
    width = max(part.rows.shape[1] for part in parts)

    def padded(arrays: list[NDArray[Any]], absent: float) -> NDArray[Any]:
        return np.vstack(
            [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=absent) for a in arrays]
        )

    return Candidates(
        padded([part.rows for part in parts], -1),
        padded([part.proposed for part in parts], -np.inf),
        padded([part.scores for part in parts], -np.inf),
    )


def _pieces(rows: Iterable[int] | RowArray) -> Iterator[RowArray]:
    """``rows`` in arrays of as many as one request may ask for."""
    wanted = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), np.int64)
    for start in range(0, len(wanted), MOST_ROWS):
        yield wanted[start : start + MOST_ROWS]


def _refusal(response: Response) -> str:
    """What a server said instead of an answer."""
    try:
        fault = parse_json(response.body.decode("utf-8"))["error"]
        return f"{response.status}, {one_line(fault['message'])}"
    except (ValueError, RecursionError, LookupError, TypeError):
        return f"it answered {response.status} without saying why"
