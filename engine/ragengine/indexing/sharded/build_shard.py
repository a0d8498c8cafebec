"""Building one shard of an index, apart from the others."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus, PassagesInput
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing.build import IndexBuild
from ragengine.indexing.inputs import check_threads
from ragengine.indexing.partition import check_shards
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.revision import DEFAULT_RECALL
from ragengine.indexing.sharded.train import check_readable_again
from ragengine.indexing.sharded.trained import Training
from ragengine.indexing.vector_sources import (
    EmbeddingsInput,
    PendingPassages,
    VectorSource,
    encoded_vectors,
    given_vectors,
)
from ragengine.indexing.writer import IndexWriter, new_manifest
from ragengine.messages import short_repr
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from ragengine.retrieval.sharding.manifest import ShardEntry, shard_folder
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import checked_path


def build_shard(
    passages: PassagesInput,
    out: str | Path,
    *,
    shard: int,
    shards: int,
    bundle: str | Path | Bundle,
    embeddings: EmbeddingsInput | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    passage_words: int | None = None,
    overlap: int = 0,
    strict: bool = False,
    resume: bool = False,
    force: bool = True,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> ShardEntry:
    """Build one shard of an index, as ``ragengine index build --shard i/N`` does.

    Shards are numbered from 0.  Shard i has the passages from row i·count/N to row (i+1)·count/N, rounded
    down.  It needs nothing of the others: jobs may run at once, and on machines whose copy of ``out`` has
    no more than the training.

    Args:
        passages: what was given to :func:`train_quantizer`, like ``bundle``, ``embeddings``, ``batch_tokens``
            and how passages are read.
        out: the folder with the training, in which the shard's folder is written.
        shard: the number of the shard, from 0 on.
        shards: how many shards there are.
        bundle: the bundle whose passage encoder makes the vectors.
        embeddings: the vectors of all passages, where they are not encoded.
        id_field: the column or JSON field of the ids.
        title_field: the column or JSON field of the titles.
        text_field: the column or JSON field of the texts.
        passage_words: words of a passage.
        overlap: words that a passage repeats of the one before it.
        strict: whether it is an error to leave a file of a folder out.
        resume: go on with a build of this shard that was killed or interrupted.
        force: False refuses to replace a shard that is there.
        device: where passages are encoded: auto, cpu or cuda.
        threads: threads to use; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        What ``shards.json`` will say of the shard; with fewer passages than shards some are empty, and have
        no folder.

    Raises:
        PassagesError: passages or embeddings cannot be read, or are not as many as were counted.
        InputError: ``shard`` or ``shards`` are no such numbers, or another option cannot be used.
        BundleError: the bundle is not whole.
        IndexFolderError: nothing was trained in ``out``, or for something else; or the shard cannot be
            written or resumed, or there is not enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    check_threads(threads)
    check_shards(shards)
    if isinstance(shard, bool) or not isinstance(shard, int) or not 0 <= shard < shards:
        raise InputError(
            f"shard is {short_repr(shard)}; of {shards} shards it must be from 0 to {shards - 1}."
        )
    out = checked_path(out, IndexFolderError)
    trained = Training.read(out)
    job = IndexBuild.checked(
        passages,
        ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict),
        bundle,
        embeddings=embeddings,
        queries=None,
        factory=trained.factory,
        recall=DEFAULT_RECALL,
        seed=trained.seed,
        batch_tokens=batch_tokens,
    )
    check_readable_again(job.corpus)
    given = given_vectors(job.corpus, embeddings, job.bundle.index_encoder)
    source = given or encoded_vectors(job.bundle, device=device, threads=threads, batch_tokens=batch_tokens)
    trained.check_inputs(job.inputs(source, times=False), out)
    source.check_count(trained.count)
    first, end = trained.bounds(shard, shards)
    if first == end:
        return ShardEntry(first, 0)
    if not resume:
        texts = job.corpus.bytes * (end - first) // trained.count
        job.check_room(out / shard_folder(shard), end - first, texts=texts, memory=source.memory)
    return write_shard(
        out,
        trained,
        shard,
        shards,
        _passages(job.corpus, trained, first, end),
        source if given is None else _part(given, first, end - first),
        inputs=job.inputs(source),
        resume=resume,
        force=force,
        threads=threads,
        progress=progress,
    )


def write_shard(
    out: Path,
    trained: Training,
    shard: int,
    shards: int,
    passages: Iterable[Passage],
    source: VectorSource,
    *,
    inputs: Mapping[str, str],
    resume: bool,
    force: bool,
    threads: int | None,
    progress: Progress | None,
) -> ShardEntry:
    """Write a shard that has ``passages``, with the vectors of ``source``, into the folder of the training.

    ``inputs`` are what the passages and vectors depend on, by name.
    """
    (first, end), name = trained.bounds(shard, shards), shard_folder(shard)
    settings = {**inputs, "shard": f"{shard}/{shards}", "training": trained.fingerprint}
    with IndexWriter.open(
        out / name, settings, resume=resume, force=force, threads=threads, progress=progress
    ) as writer:
        if not writer.finished:
            if writer.write_passages(passages) != end - first:
                raise _another_count(trained, "fewer")
            writer.write_vectors(source, trained.dimension)
            writer.write_faiss(trained.factory, trained.seed, trained.read_quantizer(out))
            plan = IndexPlan(trained.factory, trained.reason)
            history = trained.history(shard, shards)
            writer.finish(
                new_manifest(trained.encoder, trained.dimension, plan, trained.seed, history), None, None
            )
    return ShardEntry(first, end - first, manifest_fingerprint(IndexManifest.read(out / name)), name)


def _passages(corpus: Corpus, trained: Training, first: int, end: int) -> Iterator[Passage]:
    """The passages of rows ``first`` to ``end``; the last shard sees that there are no more."""
    passages = corpus.read()
    yield from itertools.islice(passages, first, end)
    if end == trained.count and next(passages, None) is not None:
        raise _another_count(trained, "more")


def _another_count(trained: Training, found: str) -> PassagesError:
    return PassagesError(
        f"{trained.created_from['passages']} has {found} passages than the {trained.count} that were counted "
        "when it was trained; train and build every shard again."
    )


def _part(source: VectorSource, first: int, count: int) -> VectorSource:
    """The ``count`` vectors from row ``first`` on of a source that reads no passages."""

    def blocks(pending: PendingPassages) -> Iterator[FloatArray | HalfArray]:
        left = count - pending.done
        for block in source.blocks(replace(pending, done=first + pending.done)):
            yield block[:left]
            left -= min(left, len(block))
            if not left:
                return

    return replace(source, blocks=blocks, count=count)
