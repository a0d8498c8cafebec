"""Recall@5 of an approximate index, measured against exact search."""

from dataclasses import dataclass

import numpy as np

from ragengine.errors import InputError
from ragengine.retrieval.vectors import FloatArray, HalfArray, RowArray, VectorIndex

RECALL_AT = 5
_QUERIES = 256
_ROWS_AT_ONCE = 16384
_SEED = 0


@dataclass(frozen=True)
class RecallTest:
    """Stored vectors used as questions, each looking for its nearest *other* vectors.

    A question's own vector is left out on both sides: to find it is easy and would flatter the index.  Real
    questions lie elsewhere than passages, so their recall may be lower than the measured one.
    """

    rows: RowArray
    questions: FloatArray
    thresholds: FloatArray
    """The score of the fifth-best other vector by exact search, float32 [Q]."""

    @classmethod
    def sample(cls, vectors: HalfArray) -> "RecallTest":
        """Draw up to 256 of ``vectors`` [N, E] (always the same ones) and search all of them exactly."""
        count = len(vectors)
        if count <= RECALL_AT:
            raise InputError(
                f"The recall@{RECALL_AT} of an approximate index cannot be measured on {count} passages; "
                "use the factory Flat."
            )
        drawn = np.random.default_rng(_SEED).choice(count, min(count, _QUERIES), replace=False)
        rows = np.sort(drawn).astype(np.int64)
        questions = np.asarray(vectors[rows], np.float32)
        best = np.full((len(rows), RECALL_AT), -np.inf, np.float32)  # [Q, 5], in no order
        for start in range(0, count, _ROWS_AT_ONCE):
            block = np.asarray(vectors[start : start + _ROWS_AT_ONCE], np.float32)
            scores = questions @ block.T  # [Q, rows of the block]
            inside = np.flatnonzero((rows >= start) & (rows < start + len(block)))
            scores[inside, rows[inside] - start] = -np.inf
            best = np.partition(np.hstack([best, scores]), -RECALL_AT, axis=1)[:, -RECALL_AT:]
        return cls(rows, questions, best.min(axis=1))

    def measure(self, index: VectorIndex) -> float:
        """The fraction of the five nearest others that ``index`` finds; equally good ones count."""
        found = index.search(self.questions, RECALL_AT + 1)
        others = np.where(found.rows == self.rows[:, None], -np.inf, found.scores)  # [Q, 6]
        others = -np.sort(-others, axis=1)[:, :RECALL_AT]
        # The thresholds were summed in float32: allow for their rounding.
        doubt = self.questions.shape[1] * np.finfo(np.float32).eps * index.max_norm**2
        return float((others >= self.thresholds[:, None] - doubt).mean())
