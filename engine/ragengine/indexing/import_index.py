"""Indexes that come from elsewhere: passages and a FAISS file in, an ordinary ragengine index out.

Read are Hugging Face's custom index (``RagRetriever``'s ``passages_path`` and ``index_path``), DPR's files
(a TSV and an HNSW file with an auxiliary dimension) and any FAISS file over a passage file.  A pickle beside
them (DPR's ``index_meta.dpr``, the legacy ``psgs_w100.tsv.pkl``) is never read: it can run anything.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus import sizes
from ragengine.corpus.hf_dataset import has_embeddings
from ragengine.corpus.passage import Passage, utf8_lines
from ragengine.corpus.readers import passages_kind, read_passages
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.foreign_index import ForeignIndex
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
from ragengine.retrieval.manifest import FAISS_FILE, FORMAT, PASSAGES_FILE, VECTORS_FILE, IndexManifest
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.retrieval.recall import sample_rows
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.npy import open_vectors

# What `RagRetriever.save_pretrained` calls the two parts of a custom index.
_SAVED_PASSAGES, _SAVED_FAISS = "hf_dataset", "hf_dataset_index.faiss"
_SCRATCH_FILE = "scratch.sqlite"
_ROWS_TOGETHER = 4096


def import_index(
    source: str | Path,
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    faiss_file: str | Path | None = None,
    embeddings: str | Path | None = None,
    ids: str | Path | None = None,
    queries: str | Path | None = None,
    factory: str | None = None,
    recall: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Make the index folder ``index`` of passages and a FAISS file that another program wrote.

    ``source`` is passages as :func:`~ragengine.indexing.build.build_index` reads them, or a folder of
    ``RagRetriever.save_pretrained``, which has the FAISS file, too.  Row i of ``faiss_file`` is the i-th
    passage; where it is another, ``ids`` says which: a JSON list of passage ids, or a text file with an id
    in the first column of each line, in the order of the FAISS file.

    The stored vectors are ``embeddings`` (a ``.npy`` of float32 [passages, E], in the order of the FAISS
    file) where given, else the column ``embeddings`` of a datasets folder, which transformers takes its
    ``doc_scores`` from, else those in the FAISS file.  They are kept as fp16.

    The FAISS structure is kept where it searches by inner product, and its settings are tuned as those of
    a new one; else, and where a ``factory`` is given, one is built.  ``on_plan`` is told which and why.
    ``bundle`` must be of the encoder that made the vectors: nothing in the files can tell.

    Raises :class:`PassagesError` for passages, vectors, ids and FAISS files that cannot be used or do not fit
    each other, and what :func:`build_index` raises.  The FAISS file is read into memory.  Whatever is at
    ``index`` stays until the new one is whole.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall is {recall}; it must be above 0 and at most 1.")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    passages, faiss_path = _located(Path(source), faiss_file)
    dimension = bundle.index_encoder.dimension
    questions = None if queries is None else read_queries(Path(queries), dimension)
    foreign = ForeignIndex(faiss_path, dimension)
    vectors_from = _vector_source(passages, embeddings, foreign, bundle)
    kept = foreign.factory() if factory is None else None
    plan = _plan(foreign, kept, factory)
    _check_room(Path(index), foreign, plan.factory, sizes.passages_bytes(passages))
    if on_plan is not None:
        on_plan(plan)
    job = _Job(foreign, vectors_from, kept is not None, questions, recall, threads, progress)
    created_from = {"passages": passages.name, "faiss": faiss_path.name, "vectors": vectors_from.name}
    draft = IndexManifest(
        dimension=dimension,
        metric="inner_product",
        count=foreign.count,
        factory=plan.factory,
        search={},
        recall=None,
        max_norm=0.0,
        encoder=index_encoder(bundle),
        created_by=f"ragengine {version()}",
        created_from=created_from,
        files={},
        reason=plan.reason,
        seed=seed,
    )
    with folders.replaced_folder(Path(index), FORMAT, IndexFolderError) as folder:
        report = phase_report(progress, "passages")
        _write_passages(folder, passages, None if ids is None else Path(ids), foreign.count, report)
        job.write(folder, draft)
    return IndexManifest.read(index)


@dataclass(frozen=True)
class _Job:
    """Everything of an index but its passages: vectors, FAISS index, manifest."""

    foreign: ForeignIndex
    source: VectorSource
    keep: bool
    questions: FloatArray | None
    recall: float
    threads: int | None
    progress: Progress | None

    def write(self, folder: Path, draft: IndexManifest) -> None:
        vectors, max_norm = self._write_vectors(folder, draft)
        self.foreign.check_agrees(vectors, sample_rows(draft.count, draft.seed))
        faiss_index = self._faiss_index(vectors, draft)
        training.write_faiss(faiss_index, folder / FAISS_FILE)
        draft = replace(draft, max_norm=max_norm)
        manifest = tuned_manifest(
            folder, draft, faiss_index, vectors, self.questions, self.recall, self.threads, self.progress
        )
        write_index_manifest(folder, manifest)

    def _write_vectors(self, folder: Path, draft: IndexManifest) -> tuple[HalfArray, float]:
        stored = VectorFile(folder / VECTORS_FILE, (draft.count, draft.dimension))
        with contextlib.closing(PassageStore(folder / PASSAGES_FILE)) as store, stored:
            blocks = self.source.blocks(store, 0, 0)
            max_norm = fill_vectors(stored, blocks, self.source, phase_report(self.progress, "vectors"))
        return open_vectors(folder / VECTORS_FILE, np.float16, IndexFolderError), max_norm

    def _faiss_index(self, vectors: HalfArray, draft: IndexManifest) -> Any:
        if self.keep:
            return self.foreign.structure()
        faiss_index = training.empty_faiss_index(draft.factory, draft.dimension)
        report = phase_report(self.progress, "train")
        training.train(faiss_index, vectors, draft.factory, draft.seed, self.threads, report)
        report = phase_report(self.progress, "add")
        training.add(faiss_index, vectors, draft.factory, self.threads, report)
        return faiss_index


def _located(source: Path, faiss_file: str | Path | None) -> tuple[Path, Path]:
    """The passages and the FAISS file; both in one folder where ``RagRetriever`` saved them."""
    if faiss_file is not None:
        return source, Path(faiss_file)
    if (source / _SAVED_PASSAGES).is_dir() and (source / _SAVED_FAISS).is_file():
        return source / _SAVED_PASSAGES, source / _SAVED_FAISS
    raise InputError(
        f"{source} has no {_SAVED_PASSAGES} and {_SAVED_FAISS} as RagRetriever.save_pretrained writes them; "
        "name the FAISS file with --faiss, or, where there is none, use ragengine index build."
    )


def _vector_source(
    passages: Path, embeddings: str | Path | None, foreign: ForeignIndex, bundle: Bundle
) -> VectorSource:
    given = embeddings is not None or (passages_kind(passages) == "dataset" and has_embeddings(passages))
    if not given:
        return foreign.vector_source()
    source = choose_source(
        passages, embeddings, bundle, device="cpu", threads=None, batch_tokens=BATCH_TOKENS
    )
    source.check_count(foreign.count)
    return source


def _plan(foreign: ForeignIndex, kept: str | None, factory: str | None) -> IndexPlan:
    """The factory of the new index, and why it is this one."""
    if factory is not None:
        return IndexPlan(factory, "chosen by the user; the FAISS structure of the source was not kept")
    if kept is not None:
        return IndexPlan(kept, f"the FAISS structure of {foreign.path.name} was kept")
    plan = plan_index(foreign.count, foreign.dimension)
    if foreign.has_auxiliary:
        why = "searches by L2 distance with DPR's auxiliary dimension, which was dropped"
    elif not foreign.inner_product:
        why = "searches by another metric than inner product, and may find other passages"
    else:
        why = "keeps nothing but vectors, or cannot be kept"
    return IndexPlan(plan.factory, f"built again, as {foreign.path.name} {why}; {plan.reason}")


def _check_room(index: Path, foreign: ForeignIndex, factory: str, texts: int) -> None:
    empty = training.empty_faiss_index(factory, foreign.dimension)
    needed = memory_needed(empty, foreign.count, foreign.dimension) + foreign.path.stat().st_size
    resources.check_memory(needed, factory)
    resources.check_disk(index, disk_needed(empty, foreign.count, foreign.dimension, 2 * texts))


def _write_passages(folder: Path, passages: Path, ids: Path | None, count: int, report: Report) -> None:
    """Write the passages in the order of the FAISS file, ``count`` of them."""
    path = folder / PASSAGES_FILE
    if ids is None:
        found = write_passages(path, counted(read_passages(passages), report))
    else:
        scratch = folder / _SCRATCH_FILE
        write_passages(scratch, counted(read_passages(passages), report))
        store = PassageStore(scratch)
        try:
            found = write_passages(path, _in_order(store, ids))
        finally:
            store.close()
            scratch.unlink()
    if found != count:
        there = f"{found} passages" if ids is None else f"{found} ids in {ids}"
        raise PassagesError(
            f"The FAISS file has {count} vectors for {there}; give one passage a vector, in its order."
        )


def _in_order(store: PassageStore, ids: Path) -> Iterator[Passage]:
    """The passages of ``ids``, each named once; their ids are held in memory, about 150 bytes a passage."""
    row_of: dict[str, int] = {}
    for row, passage in enumerate(chain.from_iterable(store.blocks(_ROWS_TOGETHER))):
        if row_of.setdefault(passage.id, row) != row:
            raise PassagesError(
                f"Several passages have the id {passage.id!r}, so {ids} does not tell them apart; "
                "give each an id of its own."
            )
    taken = np.zeros(store.count, bool)
    for id in read_ids(ids):
        row = row_of.get(id, -1)
        if row < 0 or taken[row]:
            fault = "which is not there" if row < 0 else "more than once"
            raise PassagesError(
                f"{ids} names the passage {id!r}, {fault}; give the id of each vector's passage."
            )
        taken[row] = True
        yield store.fetch([row])[0]


def read_ids(path: Path) -> Iterator[str]:
    """Passage ids in the order of a FAISS file: of a ``.json`` list, or the first column of each line.

    A first line whose first column is ``id`` is a header.  Raises :class:`PassagesError`.
    """
    if path.suffix.lower() != ".json":
        for number, line in enumerate(utf8_lines(path)):
            id = line.rstrip("\r\n").split("\t")[0]
            if id and (number or id != "id"):
                yield id
        return
    try:
        ids = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise PassagesError(f"{path} cannot be read as JSON: {reason}.") from reason
    if not isinstance(ids, list) or not all(type(id) in (str, int) for id in ids):
        raise PassagesError(f"{path} is not a JSON list of passage ids (strings or whole numbers).")
    yield from map(str, ids)
