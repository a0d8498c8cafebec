"""The index folder of a shard, opened, and what engines may ask of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragengine.arrays import RowArray
from ragengine.errors import InputError
from ragengine.retrieval.candidates import Candidates, check_question_vectors
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.wire import MAX_MESSAGE_BYTES
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine_serve.configuration.settings import Settings

_MOST_FIELDS = 1 << 10


class ServedShard:
    """An opened index folder.  Safe to use from several threads.

    It stays what it was when it was opened, whatever becomes of the folder: a rebuilt one takes a new server.
    """

    def __init__(self, shard: LocalShard) -> None:
        self._shard = shard
        self.fingerprint = shard.fingerprint

    @classmethod
    def load(cls, path: Path, settings: Settings) -> "ServedShard":
        """Open the folder and search it once.

        Raises:
            IndexFolderError: it is not whole.
            DeviceError: the device cannot search it.
        """
        device = settings.search_device or settings.device
        shard = LocalShard.open(path, verify=settings.verify, device=device)
        try:
            shard.index.warm_up()
            return cls(shard)
        except BaseException:
            shard.close()
            raise

    def info(self) -> dict[str, Any]:
        """What ``GET /v1/shard`` says."""
        return {
            "index": self.fingerprint,
            "count": self._shard.count,
            "dimension": self._shard.index.dimension,
        }

    def answer(self, call: str, body: bytes) -> bytes:
        """The message that answers the message ``body``.

        Raises:
            InputError: the index does not take what it says.
            ValueError: it is not the message that it should be.
        """
        return _CALLS[call](self, body)

    def _search(self, body: bytes) -> bytes:
        questions, plan, filter = messages.read_search_request(body)
        shard = self._shard
        check_question_vectors(questions, shard.index.dimension)
        if plan.nprobe is not None:
            shard.facts.structure.checked_nprobe(plan.nprobe)
        width = min(plan.width, shard.count)
        if messages.BYTES_A_CANDIDATE * width * len(questions) > MAX_MESSAGE_BYTES:
            raise InputError(
                f"{len(questions)} questions with {width} candidates each have an answer of more than "
                f"{MAX_MESSAGE_BYTES} bytes; ask fewer at once."
            )
        if not len(questions):
            return messages.search_reply(Candidates.none(0))
        return messages.search_reply(shard.candidates(questions, plan, filter))

    def _rows(self, body: bytes) -> RowArray:
        rows = messages.read_rows(body, self._shard.count)
        if len(rows) > messages.MOST_ROWS:
            raise InputError(
                f"{len(rows)} rows are asked for, at most {messages.MOST_ROWS} may be; ask fewer."
            )
        return rows

    def _passages(self, body: bytes) -> bytes:
        return messages.passages_reply(self._shard.passages(self._rows(body)))

    def _vectors(self, body: bytes) -> bytes:
        return messages.vectors_reply(self._shard.vectors(self._rows(body)))

    def _rows_of(self, body: bytes) -> bytes:
        return messages.rows_of_reply(self._shard.rows_of(messages.read_texts(body)))

    def _matching_count(self, body: bytes) -> bytes:
        return messages.number_message(self._shard.matching_count(messages.read_filter_request(body)))

    def _matching_rows(self, body: bytes) -> bytes:
        return messages.rows_message(self._shard.matching_rows(messages.read_filter_request(body)))

    def _fields(self, body: bytes) -> bytes:
        return messages.texts_message(self._shard.metadata_fields(messages.read_number(body, _MOST_FIELDS)))

    def close(self) -> None:
        """Close the folder's files; running searches finish."""
        self._shard.close()


_CALLS: dict[str, Callable[[ServedShard, bytes], bytes]] = {
    "search": ServedShard._search,
    "passages": ServedShard._passages,
    "vectors": ServedShard._vectors,
    "rows-of": ServedShard._rows_of,
    "matching-count": ServedShard._matching_count,
    "matching-rows": ServedShard._matching_rows,
    "fields": ServedShard._fields,
}
CALLS = frozenset(_CALLS)
"""What may be asked of a shard."""
