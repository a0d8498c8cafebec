"""Training what FAISS learns once, for jobs that build the shards of an index apart."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus, PassagesInput
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.build import IndexBuild
from ragengine.indexing.inputs import check_threads
from ragengine.indexing.plan import IndexPlan, memory_needed
from ragengine.indexing.revision import DEFAULT_RECALL
from ragengine.indexing.sharded.trained import FORMAT, Training
from ragengine.indexing.vector_sources import (
    EmbeddingsInput,
    PendingPassages,
    VectorFile,
    VectorSource,
    encoded_vectors,
    fill_vectors,
    given_vectors,
)
from ragengine.indexing.writer import draft_manifest
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.retrieval.sharding.quantizer import check_can_divide, empty_copy, quantizer_hash
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.npy import open_vectors
from ragengine.storage.ownership import QUANTIZER
from ragengine.version import __version__

_REPORT_EVERY = 1000


def train_quantizer(
    passages: PassagesInput,
    out: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: EmbeddingsInput | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    passage_words: int | None = None,
    overlap: int = 0,
    strict: bool = False,
    factory: str | None = None,
    seed: int = 0,
    force: bool = True,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> Training:
    """Train for an index in shards, as ``ragengine index build --train-only`` does.

    The passages are counted, and FAISS learns from the vectors of a sample of all of them: the one that
    :func:`build_index` would take.  Jobs then build the shards (:func:`build_shard`), and
    :func:`gather_shards` makes an index of them.

    Args:
        passages: paths, as for :func:`build_index`; passages of a program cannot be read by other jobs.
        out: the folder to write: ``training.json`` and ``quantizer.faiss``.
        bundle: as for :func:`build_index`, like all that follow.
        embeddings: the vectors, where they are not encoded; all are read.
        id_field: the column or JSON field of the ids.
        title_field: the column or JSON field of the titles.
        text_field: the column or JSON field of the texts.
        passage_words: words of a passage.
        overlap: words that a passage repeats of the one before it.
        strict: whether it is an error to leave a file of a folder out.
        factory: a FAISS factory string whose index can be divided.
        seed: draws the sample.
        force: False refuses to replace an earlier training.
        device: where the sample is encoded.
        threads: threads to use.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total); phases are passages, vectors and train.
        on_plan: called with the automatic choice of a factory.

    Returns:
        What ``training.json`` says.

    Raises:
        PassagesError: passages or embeddings cannot be read or do not fit each other.
        InputError: an option cannot be used, or the factory's index cannot be divided.
        BundleError: the bundle is not whole.
        IndexFolderError: ``out`` cannot be written or holds something else, or there is not enough memory.
        DependencyError: a package that is needed is not installed.
    """
    check_threads(threads)
    reading = ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict)
    job = IndexBuild.checked(
        passages,
        reading,
        bundle,
        embeddings=embeddings,
        queries=None,
        factory=factory,
        recall=DEFAULT_RECALL,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    check_readable_again(job.corpus)
    check_divisible(factory, job.dimension)
    given = given_vectors(job.corpus, embeddings, job.bundle.index_encoder)
    source = given or encoded_vectors(job.bundle, device=device, threads=threads, batch_tokens=batch_tokens)
    out = checked_path(out, IndexFolderError)
    with folders.replaced_folder(out, FORMAT, IndexFolderError, force=force) as folder:
        count = _counted(job.corpus, phase_report(progress, "passages"))
        source.check_count(count)
        job.check_count(count)

        def learn(faiss_index: Any, plan: IndexPlan) -> None:
            rows = training.training_rows(faiss_index, count, job.seed)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="sample-") as workspace:
                sample = _sample(
                    job.corpus,
                    source if given is None else _rows_of(given, rows),
                    rows,
                    job.dimension,
                    Path(workspace),
                    phase_report(progress, "vectors"),
                    encoded=given is None,
                )
                report = phase_report(progress, "train")
                training.train(faiss_index, sample, plan.factory, job.seed, threads, report, sampled=True)

        write_training(folder, job, source, count, learn, on_plan=on_plan)
    return Training.read(out)


def write_training(
    folder: Path,
    job: IndexBuild,
    source: VectorSource,
    count: int,
    learn: Callable[[Any, IndexPlan], object],
    *,
    on_plan: Callable[[IndexPlan], object] | None,
) -> None:
    """Write what the shards of ``count`` passages share into an empty ``folder``.

    ``learn`` trains a FAISS index of the plan in place; it is called where there is something to learn.
    """
    plan = job.planned(count)
    if job.factory is None and on_plan is not None:
        on_plan(plan)
    faiss_index = training.empty_faiss_index(plan.factory, job.dimension)
    resources.check_memory(memory_needed(faiss_index, 0, job.dimension) + source.memory, plan.factory)
    if not faiss_index.is_trained:
        learn(faiss_index, plan)
    training.write_faiss(faiss_index, folder / QUANTIZER)
    created_from = {"passages": job.corpus.name, "vectors": source.name}
    Training(
        count=count,
        dimension=job.dimension,
        factory=plan.factory,
        reason=plan.reason,
        seed=job.seed,
        encoder=draft_manifest(job.bundle, plan, job.seed, created_from).encoder,
        quantizer=quantizer_hash(empty_copy(folder / QUANTIZER)),
        inputs=job.inputs(source, times=False),
        created_by=f"ragengine {__version__}",
        created_from=created_from,
        files={QUANTIZER: folders.file_entry(folder / QUANTIZER)},
    ).write(folder)
    Training.read(folder).read_quantizer(folder)  # as the jobs will


def check_divisible(factory: str | None, dimension: int) -> None:
    """Raise :class:`InputError` where an index of ``factory`` cannot be in shards; the automatic one can."""
    if factory is not None:
        check_can_divide(training.empty_faiss_index(factory, dimension), f"of {factory!r}")


def check_readable_again(corpus: Corpus) -> None:
    """Raise :class:`InputError` where other jobs cannot read the same passages."""
    if corpus.given:
        raise InputError(
            "Shards need passages that every job can read; write them to a .jsonl, or build one index."
        )


def _counted(corpus: Corpus, report: Report) -> int:
    """The number of passages, of which there is one at least."""
    count = 0
    report(0, None)
    for count, _ in enumerate(corpus.read(), start=1):
        if count % _REPORT_EVERY == 0:
            report(count, None)
    report(count, count)
    if not count:
        raise PassagesError(f"{corpus.name} has no passages; an index needs at least one.")
    return count


def _sample(
    corpus: Corpus,
    source: VectorSource,
    rows: RowArray,
    dimension: int,
    workspace: Path,
    report: Report,
    *,
    encoded: bool,
) -> HalfArray:
    """The vectors of ``rows``, memory-mapped, fp16 [rows, E], written into a folder with their passages."""
    texts, path = workspace / "passages.sqlite", workspace / "vectors.npy"
    write_passages(texts, _chosen(corpus, rows) if encoded else ())
    store = PassageStore(texts)
    try:
        with VectorFile(path, (len(rows), dimension)) as stored:
            fill_vectors(stored, source, PendingPassages(store, 0, 0), report, lambda norm: None)
    finally:
        store.close()
    return open_vectors(path, np.float16, IndexFolderError)


def _chosen(corpus: Corpus, rows: RowArray) -> Iterator[Passage]:
    """The passages of ``rows``, which ascend."""
    wanted = set(rows.tolist())
    return (passage for row, passage in enumerate(corpus.read()) if row in wanted)


def _rows_of(source: VectorSource, rows: RowArray) -> VectorSource:
    """The vectors of ``rows``, which ascend, of a source that reads no passages."""

    def blocks(pending: PendingPassages) -> Iterator[FloatArray | HalfArray]:
        first = 0
        for block in source.blocks(pending):
            begin, end = np.searchsorted(rows, [first, first + len(block)])
            yield block[rows[begin:end] - first]
            first += len(block)
            if end == len(rows):
                return

    return replace(source, blocks=blocks, count=len(rows))
