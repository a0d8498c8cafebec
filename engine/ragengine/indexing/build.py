"""Building an index: passages in, a folder of texts, vectors and a FAISS index out."""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus import sizes
from ragengine.corpus.readers import read_passages
from ragengine.errors import BundleError, DependencyError, IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.build_state import Workspace, describe_files
from ragengine.indexing.plan import IndexPlan, disk_needed, memory_needed, plan_index
from ragengine.indexing.vector_sources import VectorFile, VectorSource, choose_source, fill_vectors
from ragengine.indexing.writer import (
    counted,
    index_encoder,
    read_queries,
    tuned_manifest,
    version,
    write_index_manifest,
)
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    FORMAT,
    PASSAGES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.npy import open_vectors

_TRAINED_FILE = "trained.faiss"
_FILLED_FILE = "filled.faiss"
_SAVE_SECONDS = 10.0
# What --resume cannot help with: the same would be wrong again.
_HOPELESS = (PassagesError, InputError, BundleError, DependencyError)


def build_index(
    passages: str | Path,
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    queries: str | Path | None = None,
    factory: str | None = None,
    recall: float = 0.95,
    seed: int = 0,
    resume: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Build the index folder ``index`` from ``passages`` and return its manifest.

    The vectors are ``embeddings`` (a ``.npy`` of float32 [passages, E], in file order) where given, else the
    column ``embeddings`` of a datasets folder, else d(z) of the bundle's passage encoder, computed on
    ``device`` with ``threads`` threads in batches of ``batch_tokens`` tokens.

    ``factory`` is any FAISS factory string that takes inner products; without one :func:`plan_index` chooses,
    and ``on_plan`` is told what and why.  The settings of an approximate index are tuned until ``recall`` at
    5 documents is reached for ``queries`` (a ``.npy`` of float32 [Q, E], question vectors), or for passages
    that look for others.  Where it is not, the best settings are kept and the returned ``manifest.recall``
    is below ``recall``.  ``seed`` draws the training sample and the questions.  The same input, settings,
    ``seed`` and number of threads give the same files.

    ``progress(phase, done, total)`` is called with the phases of :data:`ragengine.runtime.progress.PHASES`.

    A folder ``index`` that is there is replaced when the new one is whole, and only if it is an index.  A
    build that was killed or interrupted goes on where it was with ``resume``; without, it begins again.
    Raises :class:`PassagesError` (passages, embeddings), :class:`InputError` (factory, recall, batch tokens,
    queries), :class:`BundleError`, :class:`IndexFolderError` (cannot be written, no room, cannot be resumed),
    :class:`DependencyError`.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall is {recall}; it must be above 0 and at most 1.")
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}; it must be at least 1.")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0.")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    passages, index = Path(passages), Path(index)
    dimension = bundle.index_encoder.dimension
    questions = None if queries is None else read_queries(Path(queries), dimension)
    if factory is not None:
        training.empty_faiss_index(factory, dimension)  # a typing error costs no hours
    source = choose_source(
        passages, embeddings, bundle, device=device, threads=threads, batch_tokens=batch_tokens
    )
    settings = {
        "passages": _described(passages),
        "vectors": source.name + ("" if embeddings is None else f" {_described(Path(embeddings))}"),
        "queries": "none" if queries is None else _described(Path(queries)),
        "encoder": bundle.index_encoder.fingerprint,
        "factory": factory or "automatic",
        "recall": str(recall),
        "seed": str(seed),
        "batch tokens": str(batch_tokens),
        "faiss": import_faiss().__version__,
        "ragengine": version(),
    }
    if not resume:  # else part of it is written, and the count is known soon
        expected = source.count or sizes.estimate_count(passages)
        _check_room(index, factory, expected, dimension, sizes.passages_bytes(passages))
    job = _Job(source, factory, questions, recall, seed, threads, progress, on_plan)
    with folders.resumable_folder(
        index, FORMAT, IndexFolderError, resume=resume, hopeless=_HOPELESS
    ) as folder:
        workspace = Workspace.open(folder, settings)
        if not workspace.state.finished:
            _write_passages(workspace, passages, source, phase_report(progress, "passages"))
            if workspace.state.rows == 0:
                _check_room(index, factory, workspace.state.count or 0, dimension, 0)
            draft = IndexManifest(
                dimension=dimension,
                metric="inner_product",
                count=workspace.state.count or 0,
                factory="",
                search={},
                recall=None,
                max_norm=0.0,
                encoder=index_encoder(bundle),
                created_by=f"ragengine {version()}",
                created_from={"passages": passages.name, "vectors": source.name},
                files={},
                seed=seed,
            )
            job.run(workspace, draft)
    return IndexManifest.read(index)


@dataclass(frozen=True)
class _Job:
    """The phases of a build after the passages; each is skipped where the workspace has its result."""

    source: VectorSource
    factory: str | None
    questions: FloatArray | None
    recall: float
    seed: int
    threads: int | None
    progress: Progress | None
    on_plan: Callable[[IndexPlan], object] | None

    def run(self, workspace: Workspace, draft: IndexManifest) -> None:
        """Bring the workspace to its end: every file of the index in ``output``."""
        state, output = workspace.state, workspace.output
        vectors = self._write_vectors(workspace, draft)
        plan = self._plan(draft.count, draft.dimension)
        draft = dataclasses.replace(draft, factory=plan.factory, reason=plan.reason, max_norm=state.max_norm)
        faiss_index = self._filled_index(workspace, vectors, plan.factory)
        draft = tuned_manifest(
            output, draft, faiss_index, vectors, self.questions, self.recall, self.threads, self.progress
        )
        workspace.save("tune")
        timings = {f"{phase}_s": seconds for phase, seconds in state.timings.items()}
        write_index_manifest(output, dataclasses.replace(draft, timings={**timings, **draft.timings}))
        for name in (_TRAINED_FILE, _FILLED_FILE):
            (workspace.folder / name).unlink(missing_ok=True)
        state.finished = True
        workspace.save("tune")

    def _write_vectors(self, workspace: Workspace, draft: IndexManifest) -> HalfArray:
        state, path = workspace.state, workspace.output / VECTORS_FILE
        if state.rows < draft.count:
            before = state.max_norm
            stored = VectorFile(path, (draft.count, draft.dimension), done=state.rows)

            def saved(max_norm: float) -> None:
                state.rows, state.max_norm = stored.done, max(before, max_norm)
                if workspace.unsaved_seconds >= _SAVE_SECONDS:
                    stored.sync()  # on disk before the state says so
                    workspace.save("vectors")

            store = PassageStore(workspace.output / PASSAGES_FILE)
            with stored, contextlib.closing(store):
                blocks = self.source.blocks(store, 0, state.rows)
                report = phase_report(self.progress, "vectors")
                fill_vectors(stored, blocks, self.source, report, saved=saved)
            workspace.save("vectors")
        return open_vectors(path, np.float16, IndexFolderError)

    def _plan(self, count: int, dimension: int) -> IndexPlan:
        if self.factory is not None:
            return IndexPlan(self.factory, "chosen by the user")
        plan = plan_index(count, dimension)
        if self.on_plan is not None:
            self.on_plan(plan)
        return plan

    def _filled_index(self, workspace: Workspace, vectors: HalfArray, factory: str) -> Any:
        """The FAISS index of all ``vectors``, trained and filled from where the workspace is."""
        final, filled, trained = (
            workspace.output / FAISS_FILE,
            workspace.folder / _FILLED_FILE,
            workspace.folder / _TRAINED_FILE,
        )
        if final.exists():
            return read_faiss(final, mapped=False)
        if filled.exists() or trained.exists():
            faiss_index = read_faiss(filled if filled.exists() else trained, mapped=False)
        else:
            faiss_index = training.empty_faiss_index(factory, vectors.shape[1])
            report = phase_report(self.progress, "train")
            training.train(faiss_index, vectors, factory, self.seed, self.threads, report)
            training.write_faiss(faiss_index, trained)
            workspace.save("train")

        def checkpoint() -> None:
            training.write_faiss(faiss_index, filled)
            workspace.save("add")

        report = phase_report(self.progress, "add")
        training.add(faiss_index, vectors, factory, self.threads, report, checkpoint)
        training.write_faiss(faiss_index, filled)
        filled.replace(final)
        workspace.save("add")
        return faiss_index


def _write_passages(workspace: Workspace, passages: Path, source: VectorSource, report: Report) -> None:
    state, path = workspace.state, workspace.output / PASSAGES_FILE
    if state.count is None:
        path.unlink(missing_ok=True)  # half of one: reading begins again
        count = write_passages(path, counted(read_passages(passages), report))
        if count == 0:
            raise PassagesError(f"{passages} has no passages; an index needs at least one.")
        source.check_count(count)
        state.count = count
        workspace.save("passages")


def _check_room(index: Path, factory: str | None, count: int, dimension: int, texts: int) -> None:
    factory = factory or plan_index(count, dimension).factory
    faiss_index = training.empty_faiss_index(factory, dimension)
    resources.check_memory(memory_needed(faiss_index, count, dimension), factory)
    resources.check_disk(index, disk_needed(faiss_index, count, dimension, texts))


def _described(path: Path) -> str:
    files = sizes.source_files(path) if path.suffix != ".npy" else [path]
    return describe_files([file.resolve() for file in files])
