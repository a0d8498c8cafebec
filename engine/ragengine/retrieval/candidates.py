"""How an index is searched, whole or in shards: what is proposed, and which of it is found.

An approximate index proposes the W rows that FAISS scores best, and the best of these by their exact scores
are found.  Every shard proposes its own W; those that the whole index would propose are the best W of them
all by FAISS's score, since all shards score a vector alike.  So one rule, :func:`find`, serves both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, RowArray
from ragengine.errors import IndexFolderError, InputError
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.structure import Structure

# Rows that match a filter and are all scored, instead of being searched among.
FEW_MATCHING = 4096


@dataclass(frozen=True)
class SearchResult:
    """Documents found for Q questions, best first; equal scores are ordered by row.

    ``rows`` int64 [Q, D] are -1 and ``scores`` float32 [Q, D] are -inf where fewer than D were found.
    """

    rows: RowArray
    scores: FloatArray


@dataclass(frozen=True)
class Plan:
    """What is asked of an index, or of each shard.

    width   how many candidates for each question
    nprobe  the inverted lists to search; None where there are none, or as the FAISS index is set
    every   score every row, or every matching one, and propose the best: FAISS is not asked
    """

    width: int
    nprobe: int | None = None
    every: bool = False


@dataclass(frozen=True)
class Candidates:
    """What is proposed for Q questions, by ascending row; at most K for each.

    rows      int64 [Q, K], -1 where fewer are proposed
    proposed  what FAISS scored them, float32 [Q, K]; the exact score where that decides; -inf at -1
    scores    inner products with the stored vectors, float32 [Q, K]; -inf at -1
    """

    rows: RowArray
    proposed: FloatArray
    scores: FloatArray

    @classmethod
    def none(cls, questions: int) -> "Candidates":
        """Nothing for each of Q questions."""
        empty = np.empty((questions, 0), np.float32)
        return cls(np.empty((questions, 0), np.int64), empty, empty)

    @classmethod
    def stacked(cls, each: "Sequence[Candidates]") -> "Candidates":
        """Those of several questions, of as many candidates each."""
        if not each:
            return cls.none(0)
        return cls(
            np.vstack([one.rows for one in each]),
            np.vstack([one.proposed for one in each]),
            np.vstack([one.scores for one in each]),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Candidates]", first_rows: Sequence[int], questions: int) -> "Candidates":
        """Those of shards that begin at ``first_rows``, in that order; rows become those of the whole."""
        parts = [cls.none(questions), *parts]
        rows = [
            np.where(part.rows >= 0, part.rows + first, -1)
            for part, first in zip(parts, [0, *first_rows], strict=True)
        ]
        proposed, scores = [part.proposed for part in parts], [part.scores for part in parts]
        return cls(np.hstack(rows), np.hstack(proposed), np.hstack(scores))

    def narrowed(self, width: int) -> "Candidates":
        """The ``width`` that were proposed with the best scores, of equal ones those of the first rows."""
        if self.rows.shape[1] <= width:
            return self
        order = np.sort(_best(self.proposed, self.rows, width), axis=1)
        return Candidates(
            np.take_along_axis(self.rows, order, axis=1),
            np.take_along_axis(self.proposed, order, axis=1),
            np.take_along_axis(self.scores, order, axis=1),
        )

    def best(self, n_docs: int) -> SearchResult:
        """The ``n_docs`` of the best exact scores, of equal ones those of the first rows."""
        order = _best(self.scores, self.rows, n_docs)
        rows = np.full((len(self.rows), n_docs), -1, np.int64)
        scores = np.full((len(self.rows), n_docs), -np.inf, np.float32)
        rows[:, : order.shape[1]] = np.take_along_axis(self.rows, order, axis=1)
        scores[:, : order.shape[1]] = np.take_along_axis(self.scores, order, axis=1)
        return SearchResult(rows, scores)


Propose: TypeAlias = Callable[[FloatArray, Plan], Candidates]
"""Proposes candidates for questions, float32 [Q, E], among the rows that match the filter of a search."""


@dataclass(frozen=True)
class SearchFacts:
    """What decides how N = ``count`` vectors of E = ``dimension`` components are searched.

    ``max_norm`` is at least the largest of their Euclidean norms, ``rerank_width`` the least number of
    candidates that an approximate index proposes where nobody says.
    """

    structure: Structure
    count: int
    dimension: int
    max_norm: float
    rerank_width: int = 1


def find(
    propose: Propose,
    facts: SearchFacts,
    questions: FloatArray,
    n_docs: int,
    *,
    nprobe: int | None = None,
    rerank_width: int | None = None,
    matching: int | None = None,
) -> SearchResult:
    """Find the best ``n_docs`` of what is proposed, as :meth:`VectorIndex.search` says.

    Args:
        propose: proposes candidates; of several shards, all of them, joined.
        facts: of what is searched.
        questions: float32 [Q, E]; checked here.
        n_docs: documents for each question.
        nprobe: inverted lists to search; as ``facts`` says where None.
        rerank_width: candidates to re-rank at least; as ``facts`` says where None.
        matching: how many rows match the filter of the search; None where there is none.

    Raises:
        InputError: a setting or the questions cannot be used.
    """
    check_whole("n_docs", n_docs)
    check_question_vectors(questions, facts.dimension)
    _check_norms(questions, facts.max_norm)
    least = facts.rerank_width if rerank_width is None else rerank_width
    check_whole("rerank_width", least)
    n_docs, least = int(n_docs), int(least)  # FAISS takes no numbers of numpy
    structure = facts.structure
    if nprobe is not None:
        nprobe = structure.checked_nprobe(nprobe)
    questions = np.ascontiguousarray(questions)
    count = facts.count
    if matching is not None:
        count = matching
        if matching <= FEW_MATCHING or not structure.selects:
            return propose(questions, Plan(min(n_docs, count), every=True)).narrowed(n_docs).best(n_docs)
        if nprobe is None and structure.lists is not None:
            # So many times more lists that about as many rows are compared as without a filter.
            nprobe = min(structure.lists, math.ceil(structure.nprobe / (matching / facts.count)))
    width = min(n_docs if structure.exact else max(n_docs, least), count)
    result = propose(questions, Plan(width, nprobe)).narrowed(width).best(n_docs)
    if matching is not None:
        short = np.flatnonzero((result.rows >= 0).sum(axis=1) < min(n_docs, matching))
        if len(short):
            every = Plan(min(n_docs, count), every=True)
            again = propose(questions[short], every).narrowed(n_docs).best(n_docs)
            result.rows[short], result.scores[short] = again.rows, again.scores
    return result


def check_question_vectors(questions: FloatArray, dimension: int) -> None:
    """Raise :class:`InputError` unless ``questions`` are finite float32 [Q, ``dimension``]."""
    if not isinstance(questions, np.ndarray) or questions.dtype != np.float32:
        found = questions.dtype if isinstance(questions, np.ndarray) else type(questions).__name__
        raise InputError(f"Question vectors must be float32, found {found}; use .astype(numpy.float32).")
    if questions.ndim != 2 or questions.shape[1] != dimension:
        raise InputError(
            f"Question vectors have the shape {list(questions.shape)}; this index needs [Q, {dimension}]."
        )
    if not np.isfinite(questions).all():
        row = int(np.flatnonzero(~np.isfinite(questions).all(axis=1))[0])
        raise InputError(f"Question vector {row} has NaN or infinite components; all must be finite.")


def check_scores(rows: RowArray, scores: FloatArray) -> None:
    """Refuse stored vectors that are not finite: they would be ranked arbitrarily, without an error."""
    finite = np.isfinite(scores)
    if not finite.all():
        raise IndexFolderError(
            f"The stored vector of row {rows[~finite][0]} has NaN or infinite components; "
            "build the index again."
        )


def euclidean_norms(questions: FloatArray) -> NDArray[np.float64]:
    """The norms of questions [Q, E], [Q]."""
    norms: NDArray[np.float64] = np.linalg.norm(questions.astype(np.float64), axis=1)
    return norms


def _check_norms(questions: FloatArray, max_norm: float) -> None:
    norms = euclidean_norms(questions)
    if len(norms) and norms.max() * max_norm > np.finfo(np.float32).max:
        raise InputError(
            f"Question vector {int(norms.argmax())} has the norm {norms.max():.3g}, so large that its "
            "scores exceed float32; scale it down."
        )


def _best(scores: FloatArray, rows: RowArray, most: int) -> RowArray:
    """Where the ``most`` best of each line are, best first, of equal scores the first rows: [Q, K]."""
    order: RowArray = np.lexsort((rows, -scores), axis=1)[:, :most]
    return order
