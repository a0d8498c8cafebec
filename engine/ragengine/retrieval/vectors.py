"""Maximum inner product search over stored passage vectors (paper, section 2.2).

FAISS proposes candidates; the scores come from the stored fp16 vectors.  So ``doc_scores`` are those of an
exact search whatever the FAISS index keeps of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.errors import DependencyError, InputError, RagEngineError

FloatArray: TypeAlias = NDArray[np.float32]
HalfArray: TypeAlias = NDArray[np.float16]
RowArray: TypeAlias = NDArray[np.int64]

FP16_MAX = 65504.0
_FLOAT32 = np.finfo(np.float32)
_ROWS_AT_ONCE = 4096
# Candidates beyond n_docs from an exact FAISS index, enough to see that nothing was cut off at a tie.
_MARGIN = 16


@dataclass(frozen=True)
class SearchResult:
    """Documents found for Q questions, best first; equal scores are ordered by row.

    ``rows`` int64 [Q, D] are -1 and ``scores`` float32 [Q, D] are -inf where fewer than D were found.
    """

    rows: RowArray
    scores: FloatArray


class VectorIndex:
    """A FAISS index of N vectors beside the N stored vectors it was made from.

    Safe to search from many threads.
    """

    def __init__(
        self, faiss_index: Any, vectors: HalfArray, max_norm: float, settings: Mapping[str, int]
    ) -> None:
        """``vectors`` is fp16 [N, E]; ``max_norm`` is at least the largest of their Euclidean norms.

        ``settings`` are FAISS run-time parameters such as ``nprobe``, and ``rerank_width``, the least
        number of candidates that an approximate index proposes.  Raises :class:`InputError` for a setting
        that this FAISS index does not have.
        """
        faiss = import_faiss()
        self.faiss_index = faiss_index
        self.vectors = vectors
        self.max_norm = max_norm
        self.exact = isinstance(faiss_index, faiss.IndexFlat)
        self._rerank_width = settings.get("rerank_width", 0)
        for name, value in settings.items():
            if value < 1:
                raise InputError(f"The search setting {name} is {value}; it must be at least 1.")
            if name != "rerank_width":
                self.set_parameter(name, value)

    def set_parameter(self, name: str, value: int) -> None:
        """Set a FAISS run-time parameter; not while another thread searches."""
        try:
            import_faiss().ParameterSpace().set_index_parameter(self.faiss_index, name, value)
        except RuntimeError as reason:
            raise InputError(f"The search setting {name}={value} does not fit this FAISS index.") from reason

    def search(self, questions: FloatArray, n_docs: int) -> SearchResult:
        """Find the ``n_docs`` vectors of largest inner product with each of ``questions``, float32 [Q, E].

        Raises :class:`InputError` for a wrong type, shape or dimension, NaN or infinite numbers.
        """
        norms = self._checked_norms(questions, n_docs)
        questions = np.ascontiguousarray(questions)
        count, dimension = self.vectors.shape
        # Twice the rounding error that FAISS's float32 sums can have: candidates whose score is further than
        # this below the last document's cannot belong in its place.
        doubt = dimension * float(_FLOAT32.eps) * norms * self.max_norm
        width = min(n_docs + _MARGIN if self.exact else max(n_docs, self._rerank_width), count)
        while True:
            found, candidates = self.faiss_index.search(questions, width)
            result = self._rescored(questions, candidates, n_docs)
            if not self.exact or width == count or (found[:, -1] < result.scores[:, -1] - doubt).all():
                return result
            width = min(4 * width, count)

    def _rescored(self, questions: FloatArray, candidates: RowArray, n_docs: int) -> SearchResult:
        rows = np.full((len(questions), n_docs), -1, np.int64)
        scores = np.full((len(questions), n_docs), -np.inf, np.float32)
        for q, question in enumerate(questions):
            # By row: ties come in order, and near pages are read together.
            proposed = np.sort(candidates[q][candidates[q] >= 0])
            exact = self.exact_scores(question, proposed)
            best = np.argsort(-exact, kind="stable")[:n_docs]
            rows[q, : len(best)] = proposed[best]
            scores[q, : len(best)] = exact[best]
        return SearchResult(rows, scores)

    def exact_scores(self, question: FloatArray, rows: RowArray) -> FloatArray:
        """Inner products of one question [E] with the stored vectors of ``rows`` [K]: float32 [K].

        Summed in float64 and each row alike, so that a score does not depend on what else is in the batch
        and equal vectors have equal scores.
        """
        scores = np.empty(len(rows), np.float32)
        wide = question.astype(np.float64)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = self.vectors[rows[start : start + _ROWS_AT_ONCE]].astype(np.float64)
            scores[start : start + _ROWS_AT_ONCE] = np.einsum("ke,e->k", block, wide)
        return scores

    def _checked_norms(self, questions: FloatArray, n_docs: int) -> NDArray[np.float64]:
        """Check the arguments of a search; the Euclidean norms of the questions, [Q]."""
        dimension = self.vectors.shape[1]
        if isinstance(n_docs, bool) or not isinstance(n_docs, int | np.integer) or n_docs < 1:
            raise InputError(f"n_docs is {n_docs!r}; it must be a whole number of at least 1.")
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
        norms: NDArray[np.float64] = np.linalg.norm(questions.astype(np.float64), axis=1)
        if len(norms) and norms.max() * self.max_norm > _FLOAT32.max:
            raise InputError(
                f"Question vector {int(norms.argmax())} has the norm {norms.max():.3g}, so large that its "
                "scores exceed float32; scale it down."
            )
        return norms


def open_vectors(path: Path, dtype: type[np.floating[Any]], error: type[RagEngineError]) -> NDArray[Any]:
    """Memory-map a ``.npy`` file of ``dtype`` [N, E], read-only; pickled objects are refused.

    Raises ``error`` naming the file, what was found and the remedy.
    """
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as reason:
        raise error(f"{path} cannot be read as a .npy file: {reason}.") from reason
    if vectors.dtype != dtype or vectors.ndim != 2:
        raise error(
            f"{path} holds {vectors.dtype} {list(vectors.shape)}; {np.dtype(dtype)} [passages, dimension] "
            "was expected; convert it with numpy's astype and save it again."
        )
    return vectors


def import_faiss() -> Any:
    """The faiss module, or a :class:`DependencyError` that says how to get it."""
    try:
        import faiss
    except ImportError as reason:
        raise DependencyError(
            'faiss is not installed; run pip install "ragengine[cpu]", or "ragengine[gpu]" on a CUDA machine '
            f"({reason})."
        ) from reason
    return faiss


def faiss_reason(error: BaseException) -> str:
    """What a FAISS exception says, without the C++ signature and source path that it begins with."""
    text = " ".join(str(error).split())
    _, separator, rest = text.partition(".cpp:")
    return rest.partition(": ")[2].removeprefix("Error: ") if separator else text
