"""Maximum inner product search over stored passage vectors (paper, section 2.2).

FAISS proposes candidates; their scores are computed from the stored fp16 vectors.  So ``doc_scores`` are
those of an exact search, whatever the FAISS index keeps of a vector.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import DeviceError, IndexFolderError, InputError
from ragengine.messages import log
from ragengine.retrieval.candidates import (
    Candidates,
    Plan,
    SearchFacts,
    SearchResult,
    check_scores,
    euclidean_norms,
    find,
)
from ragengine.retrieval.faiss_api import (
    check_whole,
    faiss_threads,
    import_faiss,
    search_faiss,
    search_parameters,
)
from ragengine.retrieval.gpu.placement import MOST_SELECTED, Placement
from ragengine.retrieval.gpu.rescoring import DeviceVectors
from ragengine.retrieval.gpu.search_worker import SearchWorker
from ragengine.retrieval.gpu.searcher import Device, GpuSearcher, device_vectors, refusal, where
from ragengine.retrieval.passage_filter import MatchingRows
from ragengine.retrieval.structure import Structure, can_share

FP16_MAX = 65504.0
_FLOAT32 = np.finfo(np.float32)
# Stored vectors that are converted to float64 together: few enough for the processor's cache.
_ROWS_AT_ONCE = 128
# Components that a flat search compares, and questions of an approximate one, for which one thread is best.
_SMALL_SCAN = 16_000_000
_SMALL_BATCH = 8
# Candidates beyond n_docs from an exact FAISS index, enough to see that no tie was cut off.
_MARGIN = 16
# Candidates of equal scores that an approximate index is asked for at most, to order them by row.
MOST_TIED = 4096


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
        self._shareable = can_share(faiss_index)
        self._device_searcher: SearchWorker | None = None
        self._device_vectors: DeviceVectors | None = None
        for name, value in settings.items():
            check_whole(name, value)
            if name != "rerank_width":
                self._set_parameter(name, value)
        self.facts = SearchFacts(
            Structure.of(faiss_index),
            len(vectors),
            vectors.shape[1],
            max_norm,
            settings.get("rerank_width", 1),
        )

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
        """Find the vectors of largest inner product with each of ``questions``.

        With ``matching``, those that are found are exactly the best of its rows where the index is exact,
        where they are few (``FEW_MATCHING``), and where FAISS cannot search among selected rows of its kind
        of index: then each of them is scored.  Otherwise the index proposes candidates among them, as it does
        without a filter, and the best of these are found; where it proposes too few, each row is scored.

        Args:
            questions: float32 [Q, E].
            n_docs: how many to find.
            nprobe: inverted lists to search in this call, all where there are fewer; the index's own setting
                where None.
            rerank_width: candidates to re-rank in this call, at least; the index's own setting where None.
                An exact index finds the same documents whatever the width.
            matching: the rows to search; all where None.

        Returns:
            Rows and scores [Q, n_docs]; behind the last row that is found -1 and -inf.

        Raises:
            InputError: a wrong type, shape or dimension, NaN or infinite numbers, or an ``nprobe`` where
                there are no inverted lists.
        """

        def propose(questions: FloatArray, plan: Plan) -> Candidates:
            return self.propose(questions, plan, matching)

        return find(
            propose,
            self.facts,
            questions,
            n_docs,
            nprobe=nprobe,
            rerank_width=rerank_width,
            matching=None if matching is None else matching.count,
        )

    def propose(self, questions: FloatArray, plan: Plan, matching: MatchingRows | None = None) -> Candidates:
        """The candidates for checked questions, float32 [Q, E], among all rows or the matching ones.

        They are ``plan.width``, fewer where fewer are there or in the lists that are searched.  An exact
        index proposes the best by exact score.  Another one proposes those that FAISS scores best, of equal
        ones the first rows, as far as :data:`MOST_TIED` are equal; a graph, one that refines and a search on
        a GPU propose what they find first of equal ones.
        """
        if plan.every:
            rows = np.arange(len(self.vectors)) if matching is None else matching.rows
            each = [
                self._scored(question[None], rows[None], plan.width, on_host=True) for question in questions
            ]
            return Candidates.stacked(each)
        count = len(self.vectors) if matching is None else matching.count
        width = min(plan.width, count)
        if not width:
            return Candidates.none(len(questions))
        if self.exact:
            return self._exact_best(questions, width, count, matching)
        proposed, rows = self._proposed(questions, width, count, plan.nprobe, matching)
        return self._scored(questions, rows, proposed=proposed)

    def _exact_best(
        self, questions: FloatArray, width: int, count: int, matching: MatchingRows | None
    ) -> Candidates:
        """The ``width`` best by exact score: more are asked for, until none further can be one of them."""
        dimension = self.vectors.shape[1]
        # Twice the rounding error that FAISS's float32 sums can have: a candidate whose score is further
        # below the last document's cannot belong in its place.
        doubt = dimension * float(_FLOAT32.eps) * euclidean_norms(questions) * self.max_norm
        asked = min(width + _MARGIN, count)
        while True:
            found, rows = self._candidates(questions, asked, None, matching)
            candidates = self._scored(questions, rows, width)
            least = candidates.scores.min(axis=1, initial=np.inf)
            if asked == count or (found[:, -1] < least - doubt).all():
                return candidates
            asked = min(4 * asked, count)

    def _proposed(
        self,
        questions: FloatArray,
        width: int,
        count: int,
        nprobe: int | None,
        matching: MatchingRows | None,
    ) -> tuple[FloatArray, RowArray]:
        """FAISS's scores and rows of the ``width`` it scores best, of equal ones the first rows.

        FAISS keeps any of several rows whose scores are equal, so it is asked for more until it finds one
        that is worse.
        """
        on_device = self._device_searcher is not None and matching is None
        asked = width if on_device or not self._shareable else min(width + 1, count)
        most = min(max(asked, MOST_TIED), count)
        while True:
            found, rows = self._candidates(questions, asked, nprobe, matching)
            if asked == width:
                return found, rows
            if asked == most or ((found[:, -1] < found[:, width - 1]) | (rows[:, -1] < 0)).all():
                break
            asked = min(4 * asked, most)
        order = np.lexsort((rows, -found), axis=1)[:, :width]
        return np.take_along_axis(found, order, 1), np.take_along_axis(rows, order, 1)

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

    def _scored(
        self,
        questions: FloatArray,
        rows: RowArray,
        width: int | None = None,
        proposed: FloatArray | None = None,
        *,
        on_host: bool = False,
    ) -> Candidates:
        """Candidates of ``rows`` [Q, K]: all, or the ``width`` best by their exact scores.

        ``proposed`` [Q, K] are FAISS's scores of them; the exact ones where those decide.
        """
        by_row = np.argsort(rows, axis=1, kind="stable")  # near pages are read together
        rows = np.take_along_axis(rows, by_row, 1)
        self._check_rows(rows)
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1  # a row that a forged list repeats
        absent = rows < 0
        if self._device_vectors is None or on_host:
            scores = self._host_scores(questions, rows)
        else:
            scores = self._device_vectors.scores(questions, np.maximum(rows, 0))
        check_scores(rows[~absent], scores[~absent])
        scores[absent] = -np.inf
        if proposed is None:
            candidates = Candidates(rows, scores, scores)
        else:
            proposed = np.where(absent, -np.inf, np.take_along_axis(proposed, by_row, 1))
            candidates = Candidates(rows, proposed.astype(np.float32), scores)
        return candidates if width is None else candidates.narrowed(width)

    def _host_scores(self, questions: FloatArray, rows: RowArray) -> FloatArray:
        """Inner products of questions [Q, E] with the stored vectors of their rows [Q, K]; any at -1."""
        scores = np.zeros(rows.shape, np.float32)
        for question, proposed, found in zip(questions, rows, scores, strict=True):
            there = proposed >= 0
            found[there] = self.exact_scores(question, proposed[there])
        return scores

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
