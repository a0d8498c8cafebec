"""Changing an index without building it again: add, delete, merge.

Each writes a new folder, which takes the place of the old one when it is whole: a search that runs, and a
process that is killed, leave one or the other.  What FAISS learned in training (rotation, lists, codes)
stays; the search settings are tuned and the recall is measured again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.inputs import check_threads, opened_bundle, shown_name
from ragengine.indexing.passage_ids import shown_ids
from ragengine.indexing.vector_sources import VectorSource, encoded_vectors, given_vectors, stored_vectors
from ragengine.indexing.writer import IndexWriter
from ragengine.messages import short_repr
from ragengine.retrieval import history
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    NUMBERED_FILE,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import why
from ragengine.storage.npy import map_npy, open_vectors

_DEFAULT_RECALL = 0.95  # of an index whose manifest does not say what was asked for
_STORE_BLOCK = 4096


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
        passages: as for :func:`build_index`; those without ids get numbers that no passage has, from
            the index's count on.
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
    check_whole("batch_tokens", batch_tokens)
    check_threads(threads)
    bundle, corpus = opened_bundle(bundle), Corpus.open(passages)
    with _OldIndex(Path(index), bundle) as old:
        source = given_vectors(corpus, embeddings, bundle.index_encoder) or encoded_vectors(
            bundle, device=device, threads=threads, batch_tokens=batch_tokens
        )
        created_from = history.with_added(old.manifest.created_from, shown_name(corpus.path))
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

    Passages that came without ids, and whose numbers ``first`` has too, get other numbers.

    Args:
        first: an index folder, whose FAISS index gets the vectors of the other: give the larger one first.
        second: an index folder, whose passages follow those of ``first``.
        index: the folder to write; ``first`` and ``second`` stay as they are, unless it is one of them.
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
    with _OldIndex(Path(first)) as old, _OldIndex(Path(second)) as other:
        ours, theirs = old.manifest, other.manifest
        if (ours.encoder.fingerprint, ours.encoder.kind) != (theirs.encoder.fingerprint, theirs.encoder.kind):
            raise IndexFolderError(
                f"The index {first} was built with the encoder {ours.encoder.name} "
                f"({ours.encoder.fingerprint[:12]}), {second} with {theirs.encoder.name} "
                f"({theirs.encoder.fingerprint[:12]}); only vectors of one encoder can be compared."
            )
        source = stored_vectors(f"index {shown_name(Path(second))}", other.vectors)
        added = _Addition(other.passages(), theirs.count, other.passages_bytes, source)
        with _opened(old, Path(index), "merge", added, threads, progress) as writer:
            _append(writer, old, added, history.of_merged(ours.created_from, theirs.created_from))
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
        InputError: an id is no string, no passage has it, or none would be left; then nothing is changed.
        IndexFolderError: the index is not whole, it cannot be written, or there is not enough memory or disk.
    """
    check_threads(threads)
    wanted = _checked_ids(ids)
    with _OldIndex(Path(index)) as old:
        found = old.store.rows_of(wanted)
        absent = [id for id in wanted if id not in found]
        if absent:
            raise InputError(f"{index} has no passage with the id {shown_ids(absent)}; nothing was deleted.")
        gone = np.array(sorted(itertools.chain.from_iterable(found.values())), np.int64)
        if len(gone) == old.manifest.count:
            raise InputError(f"{index} has no other passages; an index needs at least one.")
        if not len(gone):
            return old.manifest
        created_from = history.with_deleted(old.manifest.created_from, len(gone))
        with _opened(old, Path(index), "delete", None, threads, progress) as writer:
            deleted = set(gone.tolist())
            left = (passage for row, passage in enumerate(old.passages()) if row not in deleted)
            writer.write_passages(left, old.manifest.count - len(gone), old.path)
            rows = np.delete(np.arange(old.manifest.count), gone)
            source = stored_vectors(f"index {shown_name(Path(index))}", old.vectors, rows)
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
        self._numbered = self._read_numbered()

    def __enter__(self) -> "_OldIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def passages(self) -> Iterator[Passage]:
        """The passages in order."""
        stored = itertools.chain.from_iterable(self.store.blocks(_STORE_BLOCK))
        for passage, numbered in zip(stored, self._numbered, strict=True):
            yield dataclasses.replace(passage, numbered=True) if numbered else passage

    def _read_numbered(self) -> NDArray[np.uint8]:
        """1 for each passage whose id was not given; the file is there if one was not."""
        if NUMBERED_FILE not in self.manifest.files:
            return np.zeros(self.manifest.count, np.uint8)
        path = self.path / NUMBERED_FILE
        try:
            numbered = map_npy(path)
        except (OSError, ValueError) as reason:
            raise IndexFolderError(
                f"{path} cannot be read: {why(reason)}; build the index again."
            ) from reason
        if numbered.dtype != np.uint8 or numbered.shape != (self.manifest.count,):
            raise IndexFolderError(
                f"{path} holds {numbered.dtype} {list(numbered.shape)}, uint8 [{self.manifest.count}] was "
                "expected; build the index again."
            )
        return numbered

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
    manifest = old.manifest
    try:
        parse_factory(manifest.factory, manifest.dimension)
    except InputError as reason:
        raise IndexFolderError(f"The index {old.path} can be searched, but not changed: {reason}") from reason
    count, texts = (0, 0) if added is None else (added.count, added.bytes)
    resources.check_room(
        index,
        manifest.factory,
        manifest.count + count,
        manifest.dimension,
        texts=old.passages_bytes + texts,
        memory=0 if added is None else added.source.memory,
    )
    return IndexWriter.open(index, {"command": command}, threads=threads, progress=progress)


def _append(writer: IndexWriter, old: _OldIndex, added: _Addition, created_from: dict[str, Any]) -> None:
    """Write the passages and vectors of ``old``, then those that are added."""
    passages = itertools.chain(old.passages(), added.passages)
    writer.write_passages(passages, old.manifest.count, old.path)
    _check_added(writer, old, added.source)
    writer.write_vectors(added.source, old.manifest.dimension, old.vectors)
    _finish(writer, old, old.read_faiss(), created_from, max_norm=old.manifest.max_norm)


def _check_added(writer: IndexWriter, old: _OldIndex, source: VectorSource) -> None:
    """Check that passages were added, as many as there are vectors."""
    row = old.manifest.count
    if writer.count == row:
        raise PassagesError(f"There are no passages to add to {old.path}; give at least one.")
    source.check_count(writer.count - row)


def _finish(
    writer: IndexWriter, old: _OldIndex, faiss_index: Any, created_from: dict[str, Any], *, max_norm: float
) -> None:
    """Add what ``faiss_index`` lacks of the stored vectors, and tune as ``old`` was."""
    manifest = old.manifest
    writer.write_faiss(manifest.factory, manifest.seed, faiss_index)
    draft = dataclasses.replace(manifest, created_from=created_from, max_norm=max_norm)
    target = _DEFAULT_RECALL if manifest.tuning is None else manifest.tuning.target
    writer.finish(draft, old.questions(), target)
    writer.carry_calibration(old.path)


def _checked_ids(ids: Iterable[str]) -> list[str]:
    """Each of ``ids`` once."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"ids is {short_repr(ids)}; give a list of passage ids.")
    found = list(ids)
    if wrong := [id for id in found if not isinstance(id, str)]:
        kind = type(wrong[0]).__name__
        raise InputError(f"The id {short_repr(wrong[0])} is of type {kind}; give each id as a string.")
    return list(dict.fromkeys(found))
