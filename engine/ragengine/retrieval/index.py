"""An index: the folder that holds a corpus, its vectors and a FAISS index over them."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import NEIGHBOURS, SAMPLED, Corpus, fingerprint, median_nearness, spread_rows
from ragengine.confidence.model import ConfidenceModel
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError, InputError, RagEngineError
from ragengine.results import Document
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.gpu.placement import Placement, no_gpu_build
from ragengine.retrieval.gpu.searcher import Device, faiss_build, where
from ragengine.retrieval.manifest import FAISS_FILE, PASSAGES_FILE, QUERIES_FILE, VECTORS_FILE, IndexManifest
from ragengine.retrieval.passage_store import PassageStore
from ragengine.retrieval.recall import RecallTest
from ragengine.retrieval.vector_index import SearchResult, VectorIndex, place
from ragengine.runtime.lifecycle import OneProcess, awaited_at_exit
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.npy import open_vectors
from ragengine.storage.schema import join_errors

_ROWS_AT_ONCE = 16384
_NORM_ROUNDING = 1e-3
_RECALL_ROUNDING = 0.01


class PassageIndex(OneProcess):
    """An opened index.  Searching and reading passages is safe from many threads."""

    def __init__(
        self,
        path: Path,
        manifest: IndexManifest,
        searcher: VectorIndex,
        store: PassageStore,
        calibration: ConfidenceModel | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.manifest = manifest
        self._searcher: VectorIndex | None = searcher
        self._store = store
        self.device: Device = "cpu"
        self.placement = Placement("cpu", "device is cpu")
        """Where candidates are searched, and why."""
        self._calibration = calibration
        self._corpus: Corpus | None = None
        self._sampling = threading.Lock()

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

        ``verify="sha256"`` reads every file once and finds every change since the build; ``"size"`` compares
        sizes only and opens at once, since vectors and FAISS index are memory-mapped: choose it for an index
        larger than memory that was checked when it arrived.  Either way the parts are compared with each
        other.  The folder must not change while it is opened.  ``device`` is where candidates are searched:
        ``cuda`` copies the FAISS index to the GPU, ``auto`` does so where it is possible, and logs what it
        chose (docs/guides/gpu.md).
        Raises :class:`IndexFolderError` when the folder is not whole or its parts do not fit together, and
        :class:`DeviceError` where ``cuda`` cannot be used.
        """
        folder = Path(path)
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

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"index {self.path}"

    @property
    def count(self) -> int:
        """The number of passages, N."""
        return self.manifest.count

    @property
    def dimension(self) -> int:
        """The number of components of a vector, E."""
        return self.manifest.dimension

    @property
    def corpus(self) -> Corpus:
        """What flags of answers need to know of the passages, with the index's calibration.

        Some passages are searched for when it is first asked for.
        """
        with self._sampling:
            if self._corpus is None:
                self._corpus = self._sampled()
            return self._corpus

    def _sampled(self) -> Corpus:
        rows = np.array(spread_rows(self.count, SAMPLED))
        sample = np.asarray(self._open_part().vectors[rows], np.float32)
        asked = slice(None, None, max(1, len(rows) // NEIGHBOURS))
        found = self.search(sample[asked], min(2, self.count))
        others = np.where(found.rows == rows[asked, None], -np.inf, found.scores)
        nearest = others.max(axis=1)
        nearness = median_nearness(sample, sample[asked], nearest, self.count)
        return Corpus(manifest_fingerprint(self.manifest), sample, nearness, self._calibration)

    def check_belongs_to(self, bundle: Bundle) -> None:
        """Raise :class:`IndexFolderError` unless the vectors were made by the encoder of ``bundle``."""
        ours, theirs = self.manifest.encoder, bundle.index_encoder
        if ours.kind == "question_encoder":  # vectors came as a file: only that side is known
            theirs = bundle.manifest.question_encoder
        if ours.fingerprint != theirs.fingerprint:
            raise IndexFolderError(
                f"The index {self.path} was built with the encoder {ours.name} ({ours.fingerprint[:12]}), "
                f"the bundle {bundle.path} has {theirs.name} ({theirs.fingerprint[:12]}); "
                "build the index with this bundle."
            )
        wanted = bundle.manifest.question_encoder
        if self.dimension != wanted.dimension:
            raise IndexFolderError(
                f"The index {self.path} (encoder {ours.name}, {ours.fingerprint[:12]}) has vectors of "
                f"{self.dimension} numbers, the question encoder {wanted.name} ({wanted.fingerprint[:12]}) "
                f"of {bundle.path} gives {wanted.dimension}; build the index with this bundle."
            )

    @awaited_at_exit
    def search(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> SearchResult:
        """Find the ``n_docs`` best passages for question vectors, float32 [Q, E].

        Scores are inner products with the stored vectors, descending, ties by row.  ``nprobe`` and
        ``rerank_width`` are the manifest's search settings where not given, and raise :class:`InputError`
        as in :meth:`VectorIndex.search`.
        """
        return self._open_part().search(vectors, n_docs, nprobe=nprobe, rerank_width=rerank_width)

    def search_documents(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> list[list[Document]]:
        """As :meth:`search`, with the passages: documents best first, fewer where fewer were found."""
        if isinstance(n_docs, int | np.integer):  # else the search says so
            n_docs = min(n_docs, max(1, self.count))
        found = self.search(vectors, n_docs, nprobe=nprobe, rerank_width=rerank_width)
        documents = []
        for rows, scores in zip(found.rows, found.scores, strict=True):
            pairs = zip(self.passages(rows[rows >= 0]), scores.tolist(), strict=False)
            documents.append([Document(title=p.title, text=p.text, id=p.id, score=s) for p, s in pairs])
        return documents

    def best_placement(self) -> Placement:
        """Where ``device="auto"`` would let this index be searched now; nothing is copied."""
        return where(self._open_part().faiss_index)

    def warm_up(self) -> None:
        """Search once: it loads what a search needs, and fails now if the index cannot be searched."""
        question = np.asarray(self._open_part().vectors[:1], np.float32)
        self.search_documents(question, 1)
        _ = self.corpus

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order, repeated rows too."""
        self._check_process()
        return self._store.fetch(rows)

    def missing_ids(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that no passage has, in their order.  Reads the ids of every passage."""
        self._check_process()
        wanted = list(ids)
        found = self._store.rows_of(wanted) if wanted else {}
        return [id for id in wanted if id not in found]

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

    def __enter__(self) -> "PassageIndex":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_part(self) -> VectorIndex:
        self._check_process()
        searcher = self._searcher
        if searcher is None:
            raise ClosedError(f"The index {self.path} is closed; open it again.")
        return searcher


def manifest_fingerprint(manifest: IndexManifest) -> str:
    """What identifies the content of an index and how it is searched, wherever and whenever it was built."""
    files = {name: entry.sha256 for name, entry in manifest.files.items()}
    return fingerprint({"files": files, "search": manifest.search, "encoder": manifest.encoder.fingerprint})


def describe_placement(path: str | Path) -> str:
    """Where ``device="auto"`` would let the index at ``path`` be searched on this machine, and why."""
    try:
        build = faiss_build()
        if not build.gpu:  # whatever the index is
            return str(no_gpu_build(build))
        with PassageIndex.open(path, verify="size") as opened:
            return str(opened.best_placement())
    except RagEngineError as reason:
        return f"not known: {reason}"


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
