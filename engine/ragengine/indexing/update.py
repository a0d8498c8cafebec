"""Changing an index without building it again: add, delete, merge.

Each writes a new folder, which takes the place of the old one when it is whole: a search that runs, and a
process that is killed, leave one or the other.  What FAISS learned in training (rotation, lists, codes)
stays; the search settings are tuned and the recall is measured again.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.inputs import opened_bundle
from ragengine.indexing.vector_sources import VectorSource, encoded_vectors, given_vectors, stored_vectors
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.npy import open_vectors

_DEFAULT_RECALL = 0.95  # of an index whose manifest does not say what was asked for
_STORE_BLOCK = 4096
_SHOWN_IDS = 3


def add_passages(
    index: str | Path,
    passages: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> IndexManifest:
    """Add passages behind those of an index, as ``ragengine index add`` does.

    What FAISS learned when the index was built stays; the search settings are tuned again.

    Args:
        index: the index folder; the new one takes its place when it is whole.
        passages: as for :func:`build_index`; those without ids are numbered from the index's count on.
        bundle: the bundle whose encoder made the index.
        embeddings: a ``.npy`` of float32 [passages, E], in file order, instead of encoding.
        device: where passages are encoded: auto, cpu or cuda.
        threads: threads to use; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the index with the passages added.

    Raises:
        PassagesError: there are no passages, they or their embeddings cannot be used, or the index has
            passages of the same ids.
        InputError: ``batch_tokens`` cannot be used.
        BundleError: the bundle is not whole.
        IndexFolderError: the index is not whole or of another encoder, it cannot be written, or there is not
            enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}; it must be at least 1.")
    bundle, corpus = opened_bundle(bundle), Corpus.open(passages)
    with _OldIndex(Path(index), bundle) as old:
        source = given_vectors(corpus, embeddings) or encoded_vectors(
            bundle, device=device, threads=threads, batch_tokens=batch_tokens
        )
        created_from = {**old.manifest.created_from}
        created_from["added"] = [*created_from.get("added", []), corpus.path.name]
        count = source.count or corpus.estimate()
        added = _Addition(corpus.read(old.manifest.count), count, corpus.bytes, source)
        with _opened(old, Path(index), "add", added, threads, progress) as writer:
            _append(writer, old, added, created_from)
    return IndexManifest.read(index)


def merge_indexes(
    first: str | Path,
    second: str | Path,
    index: str | Path,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Write an index with the passages of two, as ``ragengine index merge`` does.

    Args:
        first: an index folder, whose FAISS index gets the vectors of the other: give the larger one first.
        second: an index folder, whose passages follow those of ``first``.
        index: the folder to write; ``first`` and ``second`` stay as they are, unless it is one of them.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the merged index.

    Raises:
        PassagesError: passages of the two share an id.
        IndexFolderError: an index is not whole, the two were made by different encoders, the new one cannot
            be written, or there is not enough memory or disk.
    """
    with _OldIndex(Path(first)) as old, _OldIndex(Path(second)) as other:
        ours, theirs = old.manifest, other.manifest
        if (ours.encoder.fingerprint, ours.encoder.kind) != (theirs.encoder.fingerprint, theirs.encoder.kind):
            raise IndexFolderError(
                f"The index {first} was built with the encoder {ours.encoder.name} "
                f"({ours.encoder.fingerprint[:12]}), {second} with {theirs.encoder.name} "
                f"({theirs.encoder.fingerprint[:12]}); only vectors of one encoder can be compared."
            )
        source = stored_vectors(f"index {Path(second).name}", other.vectors)
        added = _Addition(_streamed(other.store), theirs.count, other.passages_bytes, source)
        with _opened(old, Path(index), "merge", added, threads, progress) as writer:
            _append(writer, old, added, {"merged": [ours.created_from, theirs.created_from]})
    return IndexManifest.read(index)


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
        InputError: no passage has one of the ids, or none would be left; then nothing is changed.
        IndexFolderError: the index is not whole, it cannot be written, or there is not enough memory or disk.
    """
    wanted = list(dict.fromkeys(ids))
    with _OldIndex(Path(index)) as old:
        found = old.store.rows_of(wanted)
        absent = [id for id in wanted if id not in found]
        if absent:
            raise InputError(f"{index} has no passage with the id {_shown(absent)}; nothing was deleted.")
        gone = np.array(sorted(itertools.chain.from_iterable(found.values())), np.int64)
        if len(gone) == old.manifest.count:
            raise InputError(f"{index} has no other passages; an index needs at least one.")
        if not len(gone):
            return old.manifest
        created_from = {**old.manifest.created_from}
        created_from["deleted"] = created_from.get("deleted", 0) + len(gone)
        with _opened(old, Path(index), "delete", None, threads, progress) as writer:
            deleted = set(gone.tolist())
            writer.write_passages(p for row, p in enumerate(_streamed(old.store)) if row not in deleted)
            rows = np.delete(np.arange(old.manifest.count), gone)
            source = stored_vectors(f"index {Path(index).name}", old.vectors, rows)
            writer.write_vectors(source, old.manifest.dimension)
            faiss_index = old.read_faiss()
            if not training.remove(faiss_index, gone):
                faiss_index.reset()
            _finish(writer, old, faiss_index, created_from, max_norm=0.0)
    return IndexManifest.read(index)


class _OldIndex:
    """An index that a new one is made from, checked against its hashes."""

    def __init__(self, path: Path, bundle: Bundle | None = None) -> None:
        """Open the index at ``path``, which must belong to ``bundle`` where one is given."""
        with PassageIndex.open(path, verify="sha256") as index:
            if bundle is not None:
                index.check_belongs_to(bundle)
            self.manifest = index.manifest
        self.path = path
        self.vectors: HalfArray = open_vectors(path / VECTORS_FILE, np.float16, IndexFolderError)
        self.store = PassageStore(path / PASSAGES_FILE)
        self.passages_bytes = self.store.path.stat().st_size

    def __enter__(self) -> "_OldIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def read_faiss(self) -> Any:
        """The FAISS index, in memory and free to change."""
        return read_faiss(self.path / FAISS_FILE, mapped=False)

    def questions(self) -> FloatArray | None:
        """The questions that the index was tuned with, where they were given."""
        if self.manifest.tuning is None or self.manifest.tuning.source == "passages":
            return None
        return np.array(open_vectors(self.path / QUERIES_FILE, np.float32, IndexFolderError))


@dataclass(frozen=True)
class _Addition:
    """What is added to an index: about ``count`` passages of up to ``bytes``, with their vectors."""

    passages: Iterator[Passage]
    count: int
    bytes: int
    source: VectorSource


def _opened(
    old: _OldIndex,
    index: Path,
    command: str,
    added: _Addition | None,
    threads: int | None,
    progress: Progress | None,
) -> AbstractContextManager[IndexWriter]:
    """A writer of ``index``, once there is known to be room for ``old`` and what is added."""
    count, texts = (0, 0) if added is None else (added.count, added.bytes)
    resources.check_room(
        index,
        old.manifest.factory,
        old.manifest.count + count,
        old.manifest.dimension,
        texts=old.passages_bytes + texts,
        memory=0 if added is None else added.source.memory,
    )
    return IndexWriter.open(index, {"command": command}, threads=threads, progress=progress)


def _append(writer: IndexWriter, old: _OldIndex, added: _Addition, created_from: dict[str, Any]) -> None:
    """Write the passages and vectors of ``old``, then those that are added."""
    writer.write_passages(itertools.chain(_streamed(old.store), added.passages))
    _check_added(writer, old, added.source)
    writer.write_vectors(added.source, old.manifest.dimension, old.vectors)
    _finish(writer, old, old.read_faiss(), created_from, max_norm=old.manifest.max_norm)


def _check_added(writer: IndexWriter, old: _OldIndex, source: VectorSource) -> None:
    """Check that passages were added, as many as there are vectors, none with an id of ``old``."""
    row = old.manifest.count
    if writer.count == row:
        raise PassagesError(f"There are no passages to add to {old.path}; give at least one.")
    source.check_count(writer.count - row)
    with contextlib.closing(writer.open_passages()) as store:
        repeated = store.repeated_ids(row, _SHOWN_IDS + 1)
    if repeated:
        raise PassagesError(
            f"{old.path} has passages with the id {_shown(repeated)} already; delete them first "
            "(ragengine index delete), or give the new ones other ids."
        )


def _finish(
    writer: IndexWriter, old: _OldIndex, faiss_index: Any, created_from: dict[str, Any], *, max_norm: float
) -> None:
    """Add what ``faiss_index`` lacks of the stored vectors, and tune as ``old`` was."""
    manifest = old.manifest
    writer.write_faiss(manifest.factory, manifest.seed, faiss_index)
    draft = dataclasses.replace(manifest, created_from=created_from, max_norm=max_norm)
    target = _DEFAULT_RECALL if manifest.tuning is None else manifest.tuning.target
    writer.finish(draft, old.questions(), target)


def _streamed(store: PassageStore) -> Iterator[Passage]:
    return itertools.chain.from_iterable(store.blocks(_STORE_BLOCK))


def _shown(ids: list[str]) -> str:
    shown = ", ".join(repr(id) for id in ids[:_SHOWN_IDS])
    return shown if len(ids) <= _SHOWN_IDS else f"{shown} and others"
