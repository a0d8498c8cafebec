"""Maximum inner product search over stored passage vectors (paper, section 2.2).

FAISS proposes candidates; their scores are computed from the stored fp16 vectors.  So ``doc_scores`` are
those of an exact search, whatever the FAISS index keeps of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import DeviceError, IndexFolderError, InputError
from ragengine.messages import log
from ragengine.retrieval.faiss_api import (
    check_whole,
    checked_nprobe,
    faiss_threads,
    import_faiss,
    search_faiss,
    search_parameters,
    takes_selector,
)
from ragengine.retrieval.gpu.placement import MOST_SELECTED, Placement
from ragengine.retrieval.gpu.rescoring import DeviceVectors
from ragengine.retrieval.gpu.search_worker import SearchWorker
from ragengine.retrieval.gpu.searcher import Device, GpuSearcher, device_vectors, refusal, where
from ragengine.retrieval.passage_filter import MatchingRows

FP16_MAX = 65504.0
_FLOAT32 = np.finfo(np.float32)
# Stored vectors that are converted to float64 together: few enough for the processor's cache.
_ROWS_AT_ONCE = 128
# Components that a flat search compares, and questions of an approximate one, for which one thread is best.
_SMALL_SCAN = 16_000_000
_SMALL_BATCH = 8
# Candidates beyond n_docs from an exact FAISS index, enough to see that no tie was cut off.
_MARGIN = 16
# Rows that match a filter and are all scored, instead of being searched among.
FEW_MATCHING = 4096


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
        self._takes_selector = takes_selector(faiss_index)
        self._device_searcher: SearchWorker | None = None
        self._device_vectors: DeviceVectors | None = None
        self._rerank_width = settings.get("rerank_width", 1)
        for name, value in settings.items():
            check_whole(name, value)
            if name != "rerank_width":
                self._set_parameter(name, value)

    def _set_parameter(self, name: str, value: int) -> None:
        """Set a FAISS run-time parameter, before anything searches."""
        try:
            import_faiss().ParameterSpace().set_index_parameter(self.faiss_index, name, value)
        except RuntimeError as reason:
            raise InputError(f"The search setting {name}={value} does not fit this FAISS index.") from reason

    def search_with(self, searcher: SearchWorker, vectors: DeviceVectors | None = None) -> None:
        """Let ``searcher``, over a copy of the FAISS index, propose the candidates.

        ``vectors``, a copy of the stored ones, then score them; both are closed with this.
        A search for more than the searcher can select (:attr:`SearchWorker.most_selected`) uses the FAISS
        index itself.
        """
        self._device_searcher = searcher
        self._device_vectors = vectors

    def close(self) -> None:
        """Free the copies on a device once running searches are done; may be called again."""
        if self._device_searcher is not None:
            self._device_searcher.close()
        self._device_vectors = None

    def search(
        self,
        questions: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        matching: MatchingRows | None = None,
    ) -> SearchResult:
        """Find the ``n_docs`` vectors of largest inner product with each of ``questions``, float32 [Q, E].

        ``nprobe`` inverted lists are searched (all, where there are fewer) and at least ``rerank_width``
        candidates re-ranked; None is the index's own setting.  Both are for this call only.  An exact index
        finds the same documents whatever the width.

        With ``matching``, only these rows are searched, and min(n_docs, their number) are found.  They are
        exactly the best of them where the index is exact, where they are at most :data:`FEW_MATCHING`, and
        where FAISS cannot search among selected rows of its kind of index: then each of them is scored.
        Otherwise the index proposes candidates among them, as it does without a filter, and the best of
        these are found; where it proposes too few, each matching row is scored.

        Raises :class:`InputError` for a wrong type, shape or dimension, NaN or infinite numbers, and for an
        ``nprobe`` where there are no inverted lists.
        """
        check_whole("n_docs", n_docs)
        norms = self._checked_norms(questions)
        least = self._rerank_width if rerank_width is None else rerank_width
        check_whole("rerank_width", least)
        if nprobe is not None:
            nprobe = checked_nprobe(self.faiss_index, nprobe)
        questions = np.ascontiguousarray(questions)
        if matching is not None and (matching.count <= FEW_MATCHING or not self._takes_selector):
            return self._scored_all(questions, n_docs, matching.rows)
        dimension = self.vectors.shape[1]
        count = len(self.vectors) if matching is None else matching.count
        # Twice the rounding error that FAISS's float32 sums can have: a candidate whose score is further
        # below the last document's cannot belong in its place.
        doubt = dimension * float(_FLOAT32.eps) * norms * self.max_norm
        width = min(int(n_docs + _MARGIN if self.exact else max(n_docs, least)), count)
        while True:
            found, candidates = self._candidates(questions, width, nprobe, matching)
            result = self._rescored(questions, candidates, n_docs)
            if not self.exact or width == count or (found[:, -1] < result.scores[:, -1] - doubt).all():
                break
            width = min(4 * width, count)
        if matching is not None:
            short = np.flatnonzero((result.rows >= 0).sum(axis=1) < min(n_docs, count))
            if len(short):
                again = self._scored_all(questions[short], n_docs, matching.rows)
                result.rows[short], result.scores[short] = again.rows, again.scores
        return result

    def _scored_all(self, questions: FloatArray, n_docs: int, rows: RowArray) -> SearchResult:
        """The best of ``rows`` [K] for each question, every one of them scored."""
        candidates = np.broadcast_to(rows, (len(questions), len(rows)))
        return self._rescored_on_host(questions, candidates, n_docs)

    def _candidates(
        self, questions: FloatArray, width: int, nprobe: int | None, matching: MatchingRows | None
    ) -> tuple[FloatArray, RowArray]:
        """FAISS's scores and rows of the ``width`` best for each question, best first, both [Q, width]."""
        searcher = self._device_searcher
        if searcher is not None and matching is None:  # the device cannot select rows
            if max(width, nprobe or 1) <= searcher.most_selected:
                return searcher(questions, width, nprobe)
            log.warning(
                "Searched on the CPU: %d candidates in %s lists, the device selects at most %d of either.",
                width, nprobe or "the usual", searcher.most_selected,
            )  # fmt: skip
        if matching is None:
            params = search_parameters(self.faiss_index, nprobe)
        else:
            share = matching.count / len(self.vectors)
            params = search_parameters(self.faiss_index, nprobe, matching.selector, share)
        with faiss_threads(1 if self._is_small(len(questions)) else None):
            return search_faiss(self.faiss_index, questions, width, params)

    def _is_small(self, questions: int) -> bool:
        """Whether one thread searches as fast as several.

        OpenMP's threads spin for milliseconds after their work, on the cores that the generator needs next:
        with them a whole question took 30 instead of 25 ms (docs/guides/searching.md).
        """
        if self.exact:
            return questions * self.vectors.size < _SMALL_SCAN
        return questions < _SMALL_BATCH

    def _rescored(self, questions: FloatArray, candidates: RowArray, n_docs: int) -> SearchResult:
        device_vectors = self._device_vectors
        if device_vectors is not None:
            return self._rescored_on_device(device_vectors, questions, candidates, n_docs)
        return self._rescored_on_host(questions, candidates, n_docs)

    def _rescored_on_host(self, questions: FloatArray, candidates: RowArray, n_docs: int) -> SearchResult:
        rows = np.full((len(questions), n_docs), -1, np.int64)
        scores = np.full((len(questions), n_docs), -np.inf, np.float32)
        for q, question in enumerate(questions):
            # By row: ties are in order, and near pages are read together.  A forged list may repeat rows.
            proposed = np.unique(candidates[q][candidates[q] >= 0])
            self._check_rows(proposed)
            exact = self.exact_scores(question, proposed)
            _check_scores(proposed, exact)
            best = np.argsort(-exact, kind="stable")[:n_docs]
            rows[q, : len(best)] = proposed[best]
            scores[q, : len(best)] = exact[best]
        return SearchResult(rows, scores)

    def _rescored_on_device(
        self, vectors: DeviceVectors, questions: FloatArray, candidates: RowArray, n_docs: int
    ) -> SearchResult:
        """As :meth:`_rescored`, all questions at once."""
        proposed = np.sort(candidates, axis=1)  # -1, where fewer were found, comes first
        self._check_rows(proposed)
        proposed[:, 1:][proposed[:, 1:] == proposed[:, :-1]] = -1  # a row that a forged list repeats
        exact = vectors.scores(questions, np.maximum(proposed, 0))
        _check_scores(proposed, exact)
        exact[proposed < 0] = -np.inf
        best = np.argsort(-exact, axis=1, kind="stable")[:, :n_docs]
        rows = np.full((len(questions), n_docs), -1, np.int64)
        scores = np.full((len(questions), n_docs), -np.inf, np.float32)
        rows[:, : best.shape[1]] = np.take_along_axis(proposed, best, axis=1)
        scores[:, : best.shape[1]] = np.take_along_axis(exact, best, axis=1)
        return SearchResult(rows, scores)

    def _check_rows(self, rows: RowArray) -> None:
        last = int(rows.max(initial=-1))
        if last >= len(self.vectors):
            raise IndexFolderError(
                f"The FAISS index found row {last}, the stored vectors are {len(self.vectors)}; "
                "build the index again."
            )

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

    def _checked_norms(self, questions: FloatArray) -> NDArray[np.float64]:
        """Check the questions of a search; their Euclidean norms, [Q]."""
        check_question_vectors(questions, self.vectors.shape[1])
        norms: NDArray[np.float64] = np.linalg.norm(questions.astype(np.float64), axis=1)
        if len(norms) and norms.max() * self.max_norm > _FLOAT32.max:
            raise InputError(
                f"Question vector {int(norms.argmax())} has the norm {norms.max():.3g}, so large that its "
                "scores exceed float32; scale it down."
            )
        return norms


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


def place(index: VectorIndex, device: Device) -> Placement:
    """Search ``index`` on the GPU where ``device`` allows it and the index fits.

    Returns:
        The device that searches from now on, and why.

    Raises:
        DeviceError: ``device`` is ``"cuda"`` and the GPU cannot search this index; with ``"auto"`` the CPU
            searches it, and the log gives the reason.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"The index's device is {device!r}; it must be auto, cpu or cuda.")
    if device == "cpu":
        return Placement("cpu", "device is cpu")
    placement = where(index.faiss_index)
    if placement.on_gpu:
        try:
            searcher = GpuSearcher(index.faiss_index, placement)
            vectors = device_vectors(index.vectors, placement)
            index.search_with(SearchWorker(searcher.search, most_selected=MOST_SELECTED), vectors)
        except DeviceError as reason:
            placement = Placement("cpu", str(reason).rstrip("."))
    if not placement.on_gpu and device == "cuda":
        raise refusal(placement)
    log.info("The index is searched on the %s.", placement)
    return placement


def _check_scores(rows: RowArray, scores: FloatArray) -> None:
    """Refuse stored vectors that are not finite: they would be ranked arbitrarily, without an error."""
    finite = np.isfinite(scores)
    if not finite.all():
        raise IndexFolderError(
            f"The stored vector of row {rows[~finite][0]} has NaN or infinite components; "
            "build the index again."
        )
