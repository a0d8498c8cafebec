"""Recall@n_docs of an approximate index, measured against exact search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import InputError
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.runtime.progress import Report, silent

RECALL_AT = 5
QUERIES = 1000
"""The most questions of a test: at a recall of 0.95 the standard error is then about 0.4 %."""
# Exact search keeps some more than n_docs, to distinguish equally good passages from worse ones.
_TIES = 16
_ROWS_AT_ONCE = 16384


@dataclass(frozen=True)
class RecallTest:
    """Questions, and what exact search finds for each.

    Where no questions are given, stored vectors search for their nearest *other* vectors.  A question's own
    vector is left out on both sides: finding it is easy and would raise the recall.  Real questions are
    distributed differently from passages, so their recall may be lower; :meth:`of_questions` measures it.
    """

    rows: RowArray
    """The stored vector that a question is, int64 [Q]; -1 where it is none."""
    questions: FloatArray
    nearest: RowArray
    """What exact search finds for each question, best first, int64 [Q, K]: ``n_docs`` and some more."""
    scores: FloatArray
    """Their scores, float32 [Q, K]; -inf where there are fewer."""
    n_docs: int

    @classmethod
    def sample(
        cls, vectors: HalfArray, n_docs: int = RECALL_AT, seed: int = 0, report: Report = silent
    ) -> "RecallTest":
        """Search with up to 1000 of ``vectors`` [N, E], drawn with ``seed``."""
        rows = sample_rows(len(vectors), seed)
        return cls._searched(vectors, np.asarray(vectors[rows], np.float32), rows, n_docs, report)

    @classmethod
    def of_questions(
        cls, vectors: HalfArray, questions: FloatArray, n_docs: int = RECALL_AT, report: Report = silent
    ) -> "RecallTest":
        """Search ``vectors`` [N, E] with given ``questions``, float32 [Q, E]."""
        rows = np.full(len(questions), -1, np.int64)
        return cls._searched(vectors, np.ascontiguousarray(questions), rows, n_docs, report)

    @classmethod
    def _searched(
        cls, vectors: HalfArray, questions: FloatArray, rows: RowArray, n_docs: int, report: Report
    ) -> "RecallTest":
        count = len(vectors)
        if count <= n_docs:
            raise InputError(
                f"The recall@{n_docs} of an approximate index cannot be measured on {count} passages; "
                "use the factory Flat."
            )
        faiss = import_faiss()
        kept = n_docs + _TIES
        nearest = np.full((len(rows), kept), -1, np.int64)
        best = np.full((len(rows), kept), -np.inf, np.float32)
        for start in range(0, count, _ROWS_AT_ONCE):
            block = np.asarray(vectors[start : start + _ROWS_AT_ONCE], np.float32)
            wanted = min(kept + 1, len(block))  # one more: a question's own vector does not count
            scores, found = faiss.knn(questions, block, wanted, metric=faiss.METRIC_INNER_PRODUCT)
            found = found + start
            scores[found == rows[:, None]] = -np.inf
            scores, found = np.hstack([best, scores]), np.hstack([nearest, found])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
            best, nearest = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
            report(start + len(block), count)
        return cls(rows, questions, nearest, best, n_docs)

    def measure(self, index: VectorIndex) -> float:
        """The fraction of the ``n_docs`` nearest that ``index`` finds; equally good ones count."""
        found = index.search(self.questions, self.n_docs + 1)
        others = np.where(found.rows == self.rows[:, None], -np.inf, found.scores)  # [Q, n_docs + 1]
        others = -np.sort(-others, axis=1)[:, : self.n_docs]
        return float((others >= self._least(index)[:, None]).mean())

    def measure_widths(self, index: VectorIndex, candidates: RowArray, widths: Sequence[int]) -> list[float]:
        """The recall after re-ranking the first ``width`` of ``candidates`` [Q, K], for each of ``widths``.

        Re-ranking puts a true neighbour first wherever it is among the candidates, so that one search of K
        candidates gives the recall of every width up to K.
        """
        least = self._least(index)
        hits = np.zeros((len(candidates), len(widths)), np.int64)
        for q, proposed in enumerate(candidates):
            good = self.scores[q] >= least[q]
            if good.all():  # there may be more equally good ones than exact search kept
                near = self._scored(index, q, proposed) >= least[q]
            else:
                near = np.isin(proposed, self.nearest[q][good])
            found = np.cumsum(near)
            hits[q] = [min(found[width - 1], self.n_docs) for width in widths]
        return [float(total) for total in hits.mean(axis=0) / self.n_docs]

    def _scored(self, index: VectorIndex, q: int, proposed: RowArray) -> FloatArray:
        """Exact scores of the candidates of question ``q``; -inf for itself and where there is none."""
        scores = np.full(len(proposed), -np.inf, np.float32)
        valid = np.flatnonzero((proposed >= 0) & (proposed != self.rows[q]))
        scores[valid] = index.exact_scores(self.questions[q], proposed[valid])
        return scores

    def _least(self, index: VectorIndex) -> NDArray[Any]:
        """The score that counts as a hit, [Q]: the ``n_docs``-th best, less the rounding of float32 sums."""
        norms = np.linalg.norm(self.questions.astype(np.float64), axis=1)
        doubt = self.questions.shape[1] * np.finfo(np.float32).eps * norms * index.max_norm
        least: NDArray[Any] = self.scores[:, self.n_docs - 1] - doubt
        return least


def sample_rows(count: int, seed: int) -> RowArray:
    """The rows of N = ``count`` that :meth:`RecallTest.sample` searches with, ascending."""
    drawn = np.random.default_rng(seed).choice(count, min(count, QUERIES), replace=False)
    return np.sort(drawn).astype(np.int64)
