"""`IndexWriter`: every index folder is written here, by build, import, add, merge and delete alike."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.errors import (
    BundleError,
    DependencyError,
    IndexFolderError,
    InputError,
    PassagesError,
    RagEngineError,
)
from ragengine.indexing import training
from ragengine.indexing.build_state import BuildState
from ragengine.indexing.inverted_lists import fill_lists, write_codes
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.tuning import exact_manifest, recall_test, tuned_manifest
from ragengine.indexing.vector_sources import (
    PendingPassages,
    VectorFile,
    VectorSource,
    fill_vectors,
    in_blocks,
    largest_norm,
)
from ragengine.retrieval.faiss_api import faiss_threads, has_plain_lists, import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    FORMAT,
    NUMBERED_FILE,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexEncoder,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.foreign_files import read_plain
from ragengine.storage.npy import open_vectors
from ragengine.storage.ownership import CALIBRATION
from ragengine.storage.strict_json import MAX_BYTES
from ragengine.version import __version__

_TRAINED_FILE = "trained.faiss"
_FILLED_FILE = "filled.faiss"
_CODES_FILE = "codes.npy"
_SAVE_SECONDS = 10.0
_REPORT_EVERY = 1000


class _UnreadableIndexError(IndexFolderError):
    """What was written is not an index that can be searched."""


HOPELESS = (PassagesError, InputError, BundleError, DependencyError, _UnreadableIndexError)
"""Errors that would come again if a build went on, so there is nothing to resume."""


class IndexWriter:
    """Writes an index folder in four steps: passages, vectors, FAISS index, manifest.

    Each step is skipped where the run that this one resumes has done it.
    """

    def __init__(self, state: BuildState, threads: int | None, progress: Progress | None) -> None:
        self._state = state
        self._threads = threads
        self._progress = progress
        self._faiss_index: Any = None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        index: Path,
        settings: Mapping[str, str],
        *,
        resume: bool | None = None,
        force: bool = True,
        threads: int | None,
        progress: Progress | None,
    ) -> Iterator["IndexWriter"]:
        """Yield a writer whose folder takes the place of ``index`` when the block ends well.

        Before it does, the folder is opened as every reader opens it and searched once.  ``settings`` are
        what the result depends on; ``resume`` goes on with what a run with equal settings left, and None is
        for a job that leaves nothing; without ``force`` no index is replaced.  Raises
        :class:`IndexFolderError`; then ``index`` is as it was.
        """
        hopeless = (BaseException,) if resume is None else HOPELESS
        with folders.resumable_folder(
            index, FORMAT, IndexFolderError, resume=bool(resume), hopeless=hopeless, force=force
        ) as folder:
            state = BuildState.open(folder, settings, resumable=resume is not None)
            writer = cls(state, threads, progress)
            yield writer
            writer._read_back(index)

    @property
    def workspace(self) -> Path:
        """A folder for files that are needed while this writes, and not afterwards."""
        return self._state.folder

    @property
    def finished(self) -> bool:
        """Whether the run that this one resumes has written everything."""
        return self._state.checkpoint.finished

    @property
    def rows(self) -> int:
        """How many vectors are stored."""
        return self._state.checkpoint.rows

    @property
    def count(self) -> int:
        """How many passages are stored."""
        return self._state.checkpoint.count or 0

    def write_passages(self, passages: Iterable[Passage], ids: PassageIds | None = None) -> int:
        """Store ``passages`` as rows 0, 1, ... and return their number.

        ``ids`` knows which of them keep their ids; none has to where it is None.  Raises
        :class:`PassagesError` where another one has an id that is there already.
        """
        state, path = self._state, self._state.output / PASSAGES_FILE
        if state.checkpoint.count is None:
            path.unlink(missing_ok=True)  # half of one: reading begins again
            ids = ids or PassageIds()
            count = write_passages(path, ids.noted(self.counted(passages)))
            ids.settle(path)
            if ids.numbered.any():
                with VectorFile(state.output / NUMBERED_FILE, ids.numbered.shape, dtype=np.uint8) as file:
                    file.append(ids.numbered)
            state.checkpoint.count = count
            state.save("passages")
        return self.count

    def counted(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """``passages``, reported as they are read."""
        report, number = self._report("passages"), 0
        for number, passage in enumerate(passages, start=1):
            if number % _REPORT_EVERY == 0:
                report(number, None)
            yield passage
        report(number, number)

    def open_passages(self) -> PassageStore:
        """The passages that are stored; the caller closes them."""
        return PassageStore(self._state.output / PASSAGES_FILE)

    def write_vectors(
        self,
        source: VectorSource | None,
        dimension: int,
        kept: HalfArray | None = None,
        rows: RowArray | None = None,
    ) -> HalfArray:
        """Store a vector for each passage and return them all, memory-mapped, fp16 [N, E].

        The first are ``kept`` [K, E], whose norms the caller knows, or only the ``rows`` of it; those of
        ``source`` follow.
        """
        state, path = self._state, self._state.output / VECTORS_FILE
        stays = kept if rows is None else rows
        checkpoint, first = state.checkpoint, 0 if stays is None else len(stays)
        if checkpoint.rows < self.count:
            stored = VectorFile(path, (self.count, dimension), done=checkpoint.rows)

            def saved(max_norm: float) -> None:
                checkpoint.rows, checkpoint.max_norm = stored.done, max(before, max_norm)
                if state.unsaved_seconds >= _SAVE_SECONDS:
                    stored.flush()  # the checkpoint brings it to disk
                    state.save("vectors")

            with stored, contextlib.closing(self.open_passages()) as passages:
                report = self._report("vectors")
                for block in () if stays is None else in_blocks(stays[stored.done :]):
                    vectors = block
                    if kept is not None and rows is not None:
                        vectors = kept[block]
                        checkpoint.max_norm = max(checkpoint.max_norm, largest_norm(vectors))
                    stored.append(vectors)
                    if source is None:
                        report(stored.done, self.count)
                before = checkpoint.max_norm
                if source is None:
                    saved(0.0)
                else:
                    fill_vectors(
                        stored, source, PendingPassages(passages, first, stored.done - first), report, saved
                    )
            state.save("vectors")
        return self._vectors()

    def write_faiss(self, factory: str, seed: int, begun: Any = None) -> None:
        """Write a FAISS index of the stored vectors.

        It is ``begun``, an index that holds the first of them, filled with the others; where there is none,
        one of ``factory``, trained on vectors that ``seed`` draws.
        """
        state, vectors = self._state, self._vectors()
        final = state.output / FAISS_FILE
        filled, trained = state.folder / _FILLED_FILE, state.folder / _TRAINED_FILE
        if final.exists():
            self._faiss_index = read_faiss(final, mapped=False)
            return
        faiss_index = begun
        if filled.exists() or trained.exists():
            faiss_index = read_faiss(filled if filled.exists() else trained, mapped=False)
        elif faiss_index is None:
            faiss_index = training.empty_faiss_index(factory, vectors.shape[1])
            training.train(faiss_index, vectors, factory, seed, self._threads, self._report("train"))
            training.write_faiss(faiss_index, trained)
            state.save("train")

        self._add(faiss_index, factory, filled)
        training.write_faiss(faiss_index, final)
        state.save("add")
        self._faiss_index = faiss_index

    def _add(self, faiss_index: Any, factory: str, filled: Path) -> None:
        """Add the stored vectors that a FAISS index does not hold yet; checkpoints of it go to ``filled``."""
        state, vectors, report = self._state, self._vectors(), self._report("add")

        def save() -> None:
            training.write_faiss(faiss_index, filled)
            state.save("add")

        def saved(codes: VectorFile) -> None:
            if state.unsaved_seconds >= _SAVE_SECONDS or codes.done == len(vectors) - faiss_index.ntotal:
                codes.bring_to_disk()
                state.checkpoint.coded = codes.done
                state.save("add")

        if not has_plain_lists(faiss_index):
            training.add(faiss_index, vectors, factory, self._threads, report, save)
        elif faiss_index.ntotal < len(vectors):
            path = state.folder / _CODES_FILE
            with faiss_threads(self._threads):
                write_codes(faiss_index, vectors, path, state.checkpoint.coded, report, saved)
            fill_lists(faiss_index, path)

    def finish(self, draft: IndexManifest, questions: FloatArray | None, recall: float | None) -> None:
        """Tune the search until ``recall`` is reached, and write the manifest.

        A shard, for which ``recall`` is None, keeps the settings of ``draft``: they are those of the whole.

        ``draft`` says what the caller knows; its ``max_norm`` is that of the vectors that were kept.  The
        recall is measured with ``questions`` [Q, E], which the index then keeps, or with stored vectors.
        """
        state = self._state
        draft = dataclasses.replace(
            draft,
            count=self.count,
            max_norm=max(draft.max_norm, state.checkpoint.max_norm),
            created_by=f"ragengine {__version__}",
        )
        manifest, search_ms = draft, dict[str, float]()
        if recall is not None:
            manifest, search_ms = self._tuned(draft, questions, recall)
        state.save("tune")
        timings = {f"{phase}_s": seconds for phase, seconds in state.checkpoint.timings.items()}
        write_index_manifest(state.output, dataclasses.replace(manifest, timings={**timings, **search_ms}))
        for name in (_TRAINED_FILE, _FILLED_FILE, _CODES_FILE):
            (state.folder / name).unlink(missing_ok=True)
        state.checkpoint.finished = True
        state.save("tune")

    def carry_calibration(self, old: Path) -> None:
        """Take over the calibration of an index that this one grew out of, after :meth:`finish`.

        It is of that state: an engine says so, where a missing one would be forgotten without a word.
        """
        if (path := old / CALIBRATION).exists():
            (self._state.output / CALIBRATION).write_bytes(read_plain(path, MAX_BYTES))

    def _tuned(
        self, draft: IndexManifest, questions: FloatArray | None, recall: float
    ) -> tuple[IndexManifest, dict[str, float]]:
        """``draft`` with search settings and the recall measured, and the time of a search.

        An exact index needs no settings.
        """
        faiss_index, vectors = self._faiss_index, self._vectors()
        if isinstance(faiss_index, import_faiss().IndexFlat):
            return exact_manifest(draft), {}
        if questions is not None:
            path = self._state.output / QUERIES_FILE
            with VectorFile(path, questions.shape, dtype=np.float32) as file:
                file.append(questions)
        with faiss_threads(self._threads):
            test = recall_test(vectors, questions, draft.seed, self._report("exact"))
            self._state.save("exact")
            return tuned_manifest(draft, faiss_index, vectors, test, recall, self._report("tune"))

    def _read_back(self, index: Path) -> None:
        """Open what was written, as every reader does, and search it once."""
        if not self._state.output.exists():
            return  # the run that this one resumes was killed after it had put the folder in place
        self._faiss_index = None  # its memory is needed for the one that is opened
        try:
            # The hashes in the manifest were taken of these very files: their sizes are enough.
            with PassageIndex.open(self._state.output, verify="size") as written:
                written.warm_up()
        except RagEngineError as reason:
            raise _UnreadableIndexError(
                f"The index written for {index} cannot be read back, so {index} was not changed: {reason}"
            ) from reason

    def _vectors(self) -> HalfArray:
        return open_vectors(self._state.output / VECTORS_FILE, np.float16, IndexFolderError)

    def _report(self, phase: str) -> Report:
        """The report of a phase that begins now: what is done until its first step belongs to it, too."""
        report = phase_report(self._progress, phase)
        report(0, None)
        return report


def draft_manifest(bundle: Bundle, plan: IndexPlan, seed: int, created_from: dict[str, Any]) -> IndexManifest:
    """The manifest of a new index as far as it is known before :meth:`IndexWriter.finish`."""
    encoder = bundle.index_encoder
    has_passage_encoder = bundle.manifest.passage_encoder is not None
    kind: Literal["passage_encoder", "question_encoder"] = (
        "passage_encoder" if has_passage_encoder else "question_encoder"
    )
    bound = IndexEncoder(encoder.name, encoder.fingerprint, kind)
    return new_manifest(bound, encoder.dimension, plan, seed, created_from)


def new_manifest(
    encoder: IndexEncoder, dimension: int, plan: IndexPlan, seed: int, created_from: dict[str, Any]
) -> IndexManifest:
    """As :func:`draft_manifest`, for an encoder of ``dimension`` numbers that is in no bundle."""
    return IndexManifest(
        dimension=dimension,
        metric="inner_product",
        count=0,
        factory=plan.factory,
        search={},
        recall=None,
        max_norm=0.0,
        encoder=encoder,
        created_by="",
        created_from=created_from,
        files={},
        reason=plan.reason,
        seed=seed,
    )


def write_index_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Write the manifest of an index whose files are all in ``folder``; their hashes are taken now."""
    folders.write_manifest(folder, manifest.content)
