"""The index folder of a shard, opened, and what engines may ask of it."""

from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import InputError
from ragengine.retrieval.candidates import Candidates, Plan, check_question_vectors
from ragengine.retrieval.index import PassageIndex, manifest_fingerprint
from ragengine.retrieval.passage_filter import MatchingRows, PassageFilter
from ragengine.sharding.remote.messages import BYTES_A_CANDIDATE
from ragengine.sharding.remote.wire import MAX_MESSAGE_BYTES
from ragengine_serve.configuration.settings import Settings

_HEAD_BYTES = 64 << 10
MOST_ROWS = 4096
"""Passages that one request may read."""


class ServedShard:
    """An opened index folder.  Safe to use from several threads.

    It stays what it was when it was opened, whatever becomes of the folder: a rebuilt one takes a new server.
    """

    def __init__(self, index: PassageIndex) -> None:
        self._index = index
        self.fingerprint = manifest_fingerprint(index.manifest)

    @classmethod
    def load(cls, path: Path, settings: Settings) -> "ServedShard":
        """Open the folder and search it once.

        Raises:
            IndexFolderError: it is not whole.
            DeviceError: the device cannot search it.
        """
        device = settings.search_device or settings.device
        index = PassageIndex.open(path, verify=settings.verify, device=device)
        try:
            if index.count:
                index.warm_up()
            return cls(index)
        except BaseException:
            index.close()
            raise

    def info(self) -> dict[str, Any]:
        """What ``GET /v1/shard`` says, but for the server's own limits."""
        return {"index": self.fingerprint, "count": self._index.count, "dimension": self._index.dimension}

    def propose(self, questions: FloatArray, plan: Plan, filter: PassageFilter | None) -> Candidates:
        """The candidates for questions, float32 [Q, E].

        Raises:
            InputError: questions or plan that this index does not take, or whose answer is too long.
        """
        check_question_vectors(questions, self._index.dimension)
        searcher = self._index._open_part()
        if plan.nprobe is not None:
            searcher.facts.structure.checked_nprobe(plan.nprobe)
        width = min(plan.width, self._index.count)
        if BYTES_A_CANDIDATE * width * len(questions) > MAX_MESSAGE_BYTES - _HEAD_BYTES:
            raise InputError(
                f"{len(questions)} questions with {width} candidates each have an answer of more than "
                f"{MAX_MESSAGE_BYTES} bytes; ask fewer at once."
            )
        matching = None if filter is None else self._matching(filter)
        if not len(questions) or not width or (matching is not None and not matching.count):
            return Candidates.none(len(questions))
        return searcher.propose(questions, plan, matching)

    def count_matching(self, filter: PassageFilter) -> int:
        """How many passages match, perhaps none."""
        return self._matching(filter).count

    def passages(self, rows: RowArray) -> list[Passage]:
        """The passages of rows [N].

        Raises:
            InputError: a row that is not there, or too many.
        """
        if len(rows) > MOST_ROWS:
            raise InputError(
                f"{len(rows)} rows are asked for, at most {MOST_ROWS} may be; ask fewer at once."
            )
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._index.count):
            raise InputError(f"A row is not from 0 to {self._index.count - 1}; ask for rows of this shard.")
        return self._index.passages(rows)

    def close(self) -> None:
        """Close the folder's files; running searches finish."""
        self._index.close()

    def _matching(self, filter: PassageFilter) -> MatchingRows:
        try:
            return self._index._filters.matching(filter)
        except InputError:  # none matches here; another shard's may
            return MatchingRows.of_mask(np.zeros(self._index.count, bool))
