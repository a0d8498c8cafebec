"""`RemoteShard`: a shard of an index that servers have, ``ragengine serve --shard``, here or elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ShardError
from ragengine.messages import one_line
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.sharding.remote import messages
from ragengine.sharding.remote.addresses import Address
from ragengine.sharding.remote.connection import Response
from ragengine.sharding.remote.network import Network
from ragengine.sharding.remote.options import RemoteOptions
from ragengine.sharding.remote.replicas import Failed, Refused, Replicas
from ragengine.sharding.remote.wire import MAX_MESSAGE_BYTES, MEDIA_TYPE
from ragengine.storage.schema import Count, Hash, Size, join_errors, parse
from ragengine.storage.strict_json import parse_json

T = TypeVar("T")
INFO_PATH: Final = "/v1/shard"
_HEAD_BYTES: Final = 64 << 10  # of a request, besides its arrays: plan and filter
_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class ShardInfo:
    """What ``GET /v1/shard`` says of the index that a server has.

    index              the fingerprint of its content (:func:`manifest_fingerprint`)
    count              its passages
    dimension          the components of its vectors
    max_request_bytes  the longest body that the server reads
    """

    index: Hash
    count: Count
    dimension: Size
    max_request_bytes: Annotated[int, Count] = 1_000_000


class RemoteShard:
    """A shard over HTTP.  Safe to use from many threads; one :class:`Network` serves many shards.

    Every answer is of the index with the expected fingerprint, or :class:`ShardError`.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        count: int,
        dimension: int,
        addresses: Sequence[str],
        network: Network,
        options: RemoteOptions | None = None,
    ) -> None:
        """No connection is made yet.

        Args:
            name: what messages call the shard.
            fingerprint: of the index that has to answer.
            count: its passages.
            dimension: the components of its vectors.
            addresses: its servers, such as ``http://host:8000``; each has the whole shard.
            network: the thread that talks to them; it is the caller's to close.
            options: how they are asked.

        Raises:
            ShardError: there is no address, or one that is none.
            InputError: the key cannot be read.
        """
        self.name, self.fingerprint, self.count, self.dimension = name, fingerprint, count, dimension
        self.addresses = tuple(addresses)
        options = options or RemoteOptions()
        try:
            found = [Address.of(text) for text in addresses]
        except ValueError as reason:
            raise self._error(f"{reason}; write it so in shards.json") from reason
        if not found:
            raise self._error("it has no address; give one with ragengine index address")
        key = options.key()
        self._headers = {"Content-Type": MEDIA_TYPE, messages.INDEX_HEADER: fingerprint}
        self._headers |= {} if key is None else {"Authorization": f"Bearer {key}"}
        self._replicas = Replicas(found, options, MAX_MESSAGE_BYTES)
        self._network = network
        self._info: ShardInfo | None = None

    def info(self, stop: Stop = NEVER) -> ShardInfo:
        """What a server of the shard says of its index; it is asked once.

        Raises:
            ShardError: no server answers, or none has the expected index.
            DeadlineError, CancelledError: ``stop`` says so.
        """
        if self._info is None:
            self._info = self._ask("GET", INFO_PATH, b"", self._read_info, stop)
        return self._info

    def propose(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None, stop: Stop = NEVER
    ) -> Candidates:
        """The shard's candidates for checked questions, float32 [Q, E]; many are asked in several requests.

        Raises:
            ShardError, DeadlineError, CancelledError: as :meth:`info`.
        """
        width = min(plan.width, self.count)
        if not len(questions) or not width:
            return Candidates.none(len(questions))
        limit = self.info(stop).max_request_bytes - _HEAD_BYTES
        step = max(
            1,
            min(
                limit // (4 * self.dimension),
                (MAX_MESSAGE_BYTES - _HEAD_BYTES) // (messages.BYTES_A_CANDIDATE * width),
            ),
        )
        parts = []
        for start in range(0, len(questions), step):
            some = questions[start : start + step]
            asked = messages.search_request(some, plan, filter)
            parts.append(
                self._ask("POST", messages.SEARCH_PATH, asked, self._read_candidates(len(some), width), stop)
            )
        return parts[0] if len(parts) == 1 else _stacked(parts)

    def count_matching(self, filter: PassageFilter, stop: Stop = NEVER) -> int:
        """How many of its passages match a filter; raises as :meth:`info`."""

        def read(response: Response) -> int:
            return messages.read_matching_reply(response.body, self.count)

        return self._ask("POST", messages.MATCHING_PATH, messages.matching_request(filter), read, stop)

    def passages(self, rows: Iterable[int], stop: Stop = NEVER) -> list[Passage]:
        """The passages of ``rows`` of this shard, in that order; raises as :meth:`info`."""
        wanted = np.asarray(list(rows), np.int64)
        found: list[Passage] = []
        for start in range(0, len(wanted), _ROWS_AT_ONCE):
            some = wanted[start : start + _ROWS_AT_ONCE]

            def read(response: Response, count: int = len(some)) -> list[Passage]:
                return messages.read_passages_reply(response.body, count)

            found += self._ask("POST", messages.PASSAGES_PATH, messages.passages_request(some), read, stop)
        return found

    def close(self) -> None:
        """Close its connections; may be called again."""
        self._network.run(self._replicas.close())

    def _ask(self, method: str, path: str, body: bytes, read: Callable[[Response], T], stop: Stop) -> T:
        def checked(response: Response) -> T:
            if response.status != 200:
                raise Refused(_refusal(response))
            if response.index != self.fingerprint:
                raise Refused(
                    f"it answers from another index ({response.index[:12] or 'it does not say which'}, not "
                    f"{self.fingerprint[:12]})"
                )
            try:
                return read(response)
            except ValueError as reason:
                raise Refused(f"its answer cannot be used, since {one_line(reason)}") from reason

        stop.check("before a shard was asked")
        try:
            return self._network.run(self._replicas.ask((method, path, self._headers, body), checked), stop)
        except Failed as reason:
            raise self._error(f"does not answer: {reason}") from reason

    def _read_candidates(self, questions: int, width: int) -> Callable[[Response], Candidates]:
        return lambda response: messages.read_search_reply(response.body, questions, width, self.count)

    def _read_info(self, response: Response) -> ShardInfo:
        parsed = parse(ShardInfo, parse_json(response.body.decode("utf-8")))
        if parsed.value is None:
            raise ValueError(join_errors(parsed.errors))
        info = parsed.value
        if (info.index, info.count, info.dimension) != (self.fingerprint, self.count, self.dimension):
            raise ValueError(f"its index has {info.count} vectors of {info.dimension}")
        return info

    def _error(self, what: str) -> ShardError:
        return ShardError(
            f"The shard {self.name} {what}; start its servers, or allow partial answers.",
            self.name,
            self.addresses,
        )


def _stacked(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of successive questions as one; lists that are shorter get absent ones."""
    width = max(part.rows.shape[1] for part in parts)

    def padded(arrays: list[np.ndarray], absent: float) -> np.ndarray:
        return np.vstack(
            [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=absent) for a in arrays]
        )

    return Candidates(
        padded([part.rows for part in parts], -1),
        padded([part.proposed for part in parts], -np.inf),
        padded([part.scores for part in parts], -np.inf),
    )


def _refusal(response: Response) -> str:
    """What a server said instead of an answer."""
    try:
        fault = parse_json(response.body.decode("utf-8"))["error"]
        return f"{response.status}, {one_line(fault['message'])}"
    except (ValueError, RecursionError, LookupError, TypeError):
        return f"it answered {response.status} without saying why"
