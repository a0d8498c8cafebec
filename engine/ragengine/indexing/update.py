"""Changing an index without building it again: add, delete, merge."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus, PassagesInput
from ragengine.corpus.options import ReadingOptions
from ragengine.errors import IndexFolderError, InputError
from ragengine.indexing.changing import old_index, revise_index
from ragengine.indexing.inputs import check_threads, opened_bundle, shown_name
from ragengine.indexing.passage_ids import shown_ids
from ragengine.indexing.revision import Addition, Revision, revise
from ragengine.indexing.sharded.merge import merge_shards
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.vector_sources import encoded_vectors, given_vectors, stored_vectors
from ragengine.messages import short_repr
from ragengine.retrieval import history
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import checked_path


def add_passages(
    index: str | Path,
    passages: PassagesInput,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    passage_words: int | None = None,
    overlap: int = 0,
    strict: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> IndexManifest:
    """Add passages behind those of an index, as ``ragengine index add`` does.

    What FAISS learned when the index was built stays; the search settings are tuned again.

    Args:
        index: the index folder; the new one takes its place when it is whole.
        passages: as for :func:`build_index`; those without ids get numbers that no passage has, from
            the index's count on.
        bundle: the bundle whose encoder made the index.
        embeddings: a ``.npy`` of float32, float16 or bfloat16 [passages, E], in file order, instead of
            encoding.
        id_field: as for :func:`build_index`, like the others up to ``strict``.
        title_field: the column or JSON field of the titles.
        text_field: the column or JSON field of the texts.
        passage_words: words of a passage.
        overlap: words that a passage repeats of the one before it.
        strict: whether it is an error to leave a file of a folder out.
        device: where passages are encoded: auto, cpu or cuda.
        threads: threads to use; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the index with the passages added.

    Raises:
        PassagesError: there are no passages, they or their embeddings cannot be used, or the index has
            passages of the same ids.
        InputError: ``batch_tokens`` or how to read passages cannot be used.
        BundleError: the bundle is not whole.
        IndexFolderError: the index is not whole or of another encoder, it cannot be written, or there is not
            enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    check_whole("batch_tokens", batch_tokens)
    check_threads(threads)
    reading = ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict)
    bundle, corpus = opened_bundle(bundle), Corpus.open(passages, reading)
    index = checked_path(index, IndexFolderError)
    with old_index(index, bundle) as old:
        source = given_vectors(corpus, embeddings, bundle.index_encoder) or encoded_vectors(
            bundle, device=device, threads=threads, batch_tokens=batch_tokens
        )
        created_from = history.with_added(old.manifest.created_from, corpus.name)
        count = source.count or corpus.estimate()
        added = Addition(corpus.read(old.manifest.count), count, corpus.bytes, source)
        revision = Revision("add", created_from, added=added)
        return revise_index(old, revision, threads, progress)


def merge_indexes(
    first: str | Path,
    second: str | Path,
    index: str | Path,
    *,
    force: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Write an index with the passages of two, as ``ragengine index merge`` does.

    Passages that came without ids, and whose numbers ``first`` has too, get other numbers.

    Args:
        first: an index folder, whose FAISS index gets the vectors of the other: give the larger one first.
        second: an index folder, whose passages follow those of ``first``.
        index: the folder to write; ``first`` and ``second`` stay as they are, unless it is one of them.
        force: False refuses to replace an index, as the command does without ``--force``.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the merged index.

    Raises:
        PassagesError: passages of the two share an id that was given.
        IndexFolderError: an index is not whole, the two were made by different encoders, the new one cannot
            be written, or there is not enough memory or disk.
    """
    check_threads(threads)
    first, second, index = (checked_path(path, IndexFolderError) for path in (first, second, index))
    with old_index(first) as old, old_index(second) as other:
        ours, theirs = old.manifest, other.manifest
        if (ours.encoder.fingerprint, ours.encoder.kind) != (theirs.encoder.fingerprint, theirs.encoder.kind):
            raise IndexFolderError(
                f"The index {first} was built with the encoder {ours.encoder.name} "
                f"({ours.encoder.fingerprint[:12]}), {second} with {theirs.encoder.name} "
                f"({theirs.encoder.fingerprint[:12]}); only vectors of one encoder can be compared."
            )
        if isinstance(old, OldShards) and isinstance(other, OldShards):
            return merge_shards(old, other, index, threads, progress, force=force)
        if isinstance(old, OldShards) or isinstance(other, OldShards):
            divided, whole = (old, other) if isinstance(old, OldShards) else (other, old)
            raise IndexFolderError(
                f"{divided.path} is an index in shards and {whole.path} is not; merge the index that the "
                "shards were made from, or add the passages of one to the other (ragengine index list "
                "--json, then add)."
            )
        source = stored_vectors(f"index {shown_name(second)}", other.vectors)
        added = Addition(other.passages(), theirs.count, other.passages_bytes, source)
        created_from = history.of_merged(ours.created_from, theirs.created_from)
        revision = Revision("merge", created_from, added=added)
        return revise(old, index, revision, threads, progress, force=force)


def delete_passages(
    index: str | Path,
    ids: Iterable[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Delete passages from an index, as ``ragengine index delete`` does.

    The others keep their order and are rows 0, 1, ... again.

    Args:
        index: the index folder; the new one takes its place when it is whole.
        ids: the ids of the passages; where several passages share one, all of them are deleted.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the index without the passages.

    Raises:
        InputError: an id is no string, no passage has it, or none would be left; then nothing is changed.
        IndexFolderError: the index is not whole, it cannot be written, or there is not enough memory or disk.
    """
    check_threads(threads)
    wanted = checked_ids(ids)
    index = checked_path(index, IndexFolderError)
    with old_index(index) as old:
        found = old.rows_of(wanted)
        absent = [id for id in wanted if id not in found]
        if absent:
            raise InputError(f"{index} has no passage with the id {shown_ids(absent)}; nothing was deleted.")
        gone = np.array(sorted(itertools.chain.from_iterable(found.values())), np.int64)
        if len(gone) == old.manifest.count:
            raise InputError(f"{index} has no other passages; an index needs at least one.")
        if not len(gone):
            return old.manifest
        created_from = history.with_deleted(old.manifest.created_from, len(gone))
        revision = Revision("delete", created_from, gone=gone)
        return revise_index(old, revision, threads, progress)


def checked_ids(ids: Iterable[str]) -> list[str]:
    """Each of ``ids`` once."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"ids is {short_repr(ids)}; give a list of passage ids.")
    found = list(ids)
    if wrong := [id for id in found if not isinstance(id, str)]:
        kind = type(wrong[0]).__name__
        raise InputError(f"The id {short_repr(wrong[0])} is of type {kind}; give each id as a string.")
    return list(dict.fromkeys(found))
