"""An index: the folder that holds a corpus, its vectors and a FAISS index over them."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.confidence.model import ConfidenceModel
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError, InputError
from ragengine.retrieval.candidates import Candidates, Plan, SearchResult
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.gpu.placement import Placement
from ragengine.retrieval.gpu.searcher import Device, where
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexManifest,
    manifest_fingerprint,
)
from ragengine.retrieval.passage_filter import Filter, MatchingRows, PassageFilter, PassageFilters
from ragengine.retrieval.passage_store import PassageStore
from ragengine.retrieval.recall import RecallTest
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.vector_index import VectorIndex, place
from ragengine.runtime.lifecycle import awaited_at_exit
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.npy import open_vectors
from ragengine.storage.schema import join_errors

_ROWS_AT_ONCE = 16384
_NORM_ROUNDING = 1e-3
_RECALL_ROUNDING = 0.01


class PassageIndex(SearchedIndex):
    """An opened index.  Searching and reading passages is safe from many threads."""

    def __init__(
        self,
        path: Path,
        manifest: IndexManifest,
        searcher: VectorIndex,
        store: PassageStore,
        calibration: ConfidenceModel | None = None,
    ) -> None:
        super().__init__(path, manifest, manifest_fingerprint(manifest), calibration)
        self._searcher: VectorIndex | None = searcher
        self._store = store
        self.filters = PassageFilters(store)
        """Which passages match filters."""
        self.device: Device = "cpu"
        self.placement = Placement("cpu", "device is cpu")
        """Where candidates are searched, and why."""

    @classmethod
    @awaited_at_exit
    def open(
        cls,
        path: str | Path,
        *,
        verify: folders.Verify = "sha256",
        device: Device = "cpu",
    ) -> "PassageIndex":
        """Open an index folder; its files are checked against the manifest before any library reads them.

        The folder must not change while it is opened.

        Args:
            path: the folder.
            verify: ``sha256`` reads every file once and finds every change since the build; ``size`` compares
                sizes only and opens at once, since vectors and FAISS index are memory-mapped: choose it for
                an index larger than memory that was checked when it arrived.  Either way the parts are
                compared with each other.
            device: where candidates are searched: ``cuda`` copies the FAISS index to the GPU, ``auto`` does
                so where it is possible, and logs what it chose (docs/guides/gpu.md).

        Raises:
            IndexFolderError: the folder is not whole, or its parts do not fit together.
            DeviceError: ``cuda`` cannot be used.
        """
        folder = checked_path(path, IndexFolderError)
        manifest = IndexManifest.read(folder)
        needed = {FAISS_FILE, VECTORS_FILE, PASSAGES_FILE} | _own_questions(manifest)
        folders.check_files(folder, manifest.files, IndexFolderError, needed=needed, verify=verify)
        calibration = ConfidenceModel.read(folder)
        searcher, store = _open_parts(folder, manifest)
        index = cls(folder, manifest, searcher, store, calibration)
        try:
            index.device, index.placement = device, place(searcher, device)
        except BaseException:
            index.close()
            raise
        return index

    @awaited_at_exit
    def search(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """As :meth:`SearchedIndex.search`."""
        searcher, matching = self._open_part(), self._matching(filter)
        return searcher.search(vectors, n_docs, nprobe=nprobe, rerank_width=rerank_width, matching=matching)

    @awaited_at_exit
    def propose(self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None) -> Candidates:
        """The candidates of a shard, as :meth:`VectorIndex.propose`; none where no passage matches."""
        matching = None if filter is None else self.filters.found(filter)
        return self._open_part().propose(questions, plan, matching)

    def vectors(self, rows: RowArray) -> FloatArray:
        """The stored vectors of ``rows``, float32 [K, E]."""
        return np.asarray(self._open_part().vectors[rows], np.float32)

    def best_placement(self) -> Placement:
        """Where ``device="auto"`` would let this index be searched now; nothing is copied."""
        return where(self._open_part().faiss_index)

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order, repeated rows too."""
        self._check_process()
        return self._store.fetch(rows)

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids`` that a passage has, ascending.  Reads the ids of every passage."""
        self._check_process()
        return self._store.rows_of(ids)

    def matching_rows(self, filter: Filter | None) -> RowArray:
        """The rows that match a filter, ascending, int64; all where it is None.

        Raises :class:`InputError` where no passage matches.
        """
        self._check_process()
        matching = self._matching(filter)
        return np.arange(self.count) if matching is None else matching.rows

    @awaited_at_exit
    def verify(self, progress: Progress | None = None) -> None:
        """Compare the parts of the index with each other, reading all of it.

        :meth:`open` has checked the hashes; this finds what hashes cannot show, an index that was wrong when
        it was written.  Raises :class:`IndexFolderError` for the first error.
        """
        searcher, report = self._open_part(), phase_report(progress, "vectors")
        if (found := self._store.count_all()) != self.count:
            raise IndexFolderError(
                f"{self.path} is damaged: {PASSAGES_FILE} has {found} passages, its manifest says "
                f"{self.count}; build the index again."
            )
        self._store.check_metadata()
        for start in range(0, self.count, _ROWS_AT_ONCE):
            block = np.asarray(searcher.vectors[start : start + _ROWS_AT_ONCE], np.float32)
            norms = np.linalg.norm(block.astype(np.float64), axis=1)
            # Written so that NaN is wrong, too.
            wrong = np.flatnonzero(~(norms <= self.manifest.max_norm * (1 + _NORM_ROUNDING)))
            if len(wrong):
                raise IndexFolderError(
                    f"{self.path}: the stored vector of row {start + wrong[0]} has the norm "
                    f"{norms[wrong[0]]:.6g}, more than max_norm {self.manifest.max_norm:.6g}; "
                    "build the index again."
                )
            if searcher.exact:
                kept = searcher.faiss_index.reconstruct_n(start, len(block))
                differing = np.flatnonzero((kept != block).any(axis=1))
                if len(differing):
                    raise IndexFolderError(
                        f"{self.path}: row {start + differing[0]} of {FAISS_FILE} is not the vector stored "
                        f"in {VECTORS_FILE}; build the index again."
                    )
            report(start + len(block), self.count)
        if not searcher.exact and self.manifest.recall is not None:
            recall = self._recall_test(searcher, phase_report(progress, "exact")).measure(searcher)
            if recall < self.manifest.recall - _RECALL_ROUNDING:
                raise IndexFolderError(
                    f"{self.path}: its recall is {recall:.3f}, the manifest says {self.manifest.recall:.3f}; "
                    "build the index again."
                )

    def _recall_test(self, searcher: VectorIndex, report: Report) -> RecallTest:
        """The questions that the manifest's recall was measured with, searched exactly."""
        tuning = self.manifest.tuning
        if tuning is None:
            return RecallTest.sample(searcher.vectors, report=report)
        if tuning.source == "file":
            questions = open_vectors(self.path / QUERIES_FILE, np.float32, IndexFolderError)
            return RecallTest.of_questions(searcher.vectors, questions, tuning.n_docs, report)
        return RecallTest.sample(searcher.vectors, tuning.n_docs, self.manifest.seed, report)

    def close(self) -> None:
        """Close the files; may be called again.  Running searches finish.  In a fork it does nothing."""
        if self._in_fork:
            return
        searcher, self._searcher = self._searcher, None
        if searcher is not None:
            searcher.close()
        self._store.close()

    def _matching(self, filter: Filter | None) -> MatchingRows | None:
        wanted = PassageFilter.of(filter)
        return None if wanted is None else self.filters.matching(wanted)

    def _open_part(self) -> VectorIndex:
        self._check_process()
        searcher = self._searcher
        if searcher is None:
            raise ClosedError(f"The index {self.path} is closed; open it again.")
        return searcher


def _own_questions(manifest: IndexManifest) -> set[str]:
    """The file of questions that the recall was measured with, if there is one."""
    return {QUERIES_FILE} if manifest.tuning is not None and manifest.tuning.source == "file" else set()


def _open_parts(folder: Path, manifest: IndexManifest) -> tuple[VectorIndex, PassageStore]:
    """Open the files of an index, and check that they and the manifest agree."""
    with contextlib.ExitStack() as opened:
        store = PassageStore(folder / PASSAGES_FILE)
        opened.callback(store.close)
        vectors = open_vectors(folder / VECTORS_FILE, np.float16, IndexFolderError)
        faiss_index = read_faiss(folder / FAISS_FILE, mapped=True)
        errors = [*_part_errors(manifest, vectors, faiss_index, store), *_question_errors(folder, manifest)]
        if errors:
            raise IndexFolderError(f"{folder} is damaged: {join_errors(errors)}; build the index again.")
        try:
            searcher = VectorIndex(faiss_index, vectors, manifest.max_norm, manifest.search)
        except InputError as reason:
            raise IndexFolderError(f"{folder} is damaged: {reason}") from reason
        opened.pop_all()
        return searcher, store


def _part_errors(
    manifest: IndexManifest, vectors: HalfArray, faiss_index: Any, store: PassageStore
) -> Iterator[str]:
    """Each difference between the files and what the manifest says."""
    said = f"its manifest says {manifest.count} of {manifest.dimension} ({manifest.metric})"
    if vectors.shape != (manifest.count, manifest.dimension):
        found, width = vectors.shape
        yield f"{VECTORS_FILE} has {found} vectors of {width}, {said}"
    if (faiss_index.ntotal, faiss_index.d) != (manifest.count, manifest.dimension):
        yield f"{FAISS_FILE} has {faiss_index.ntotal} vectors of {faiss_index.d}, {said}"
    if faiss_index.metric_type != import_faiss().METRIC_INNER_PRODUCT:
        yield f"{FAISS_FILE} has the metric number {faiss_index.metric_type}, {said}"
    if store.count != manifest.count:
        yield f"{PASSAGES_FILE} has {store.count} passages, {said}"


def _question_errors(folder: Path, manifest: IndexManifest) -> Iterator[str]:
    for name in _own_questions(manifest):
        questions = open_vectors(folder / name, np.float32, IndexFolderError)
        if questions.shape[1] != manifest.dimension or not len(questions):
            yield f"{name} is {list(questions.shape)}, [Q, {manifest.dimension}] was expected"
