"""Changing an index without building it again: add, delete, merge.

Each writes a new folder that takes the place of the old one when it is whole, so that a search, or a kill,
sees one or the other.  What FAISS learned when the index was trained (rotation, lists, codes) stays; the
search settings are tuned and the recall is measured again.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus import sizes
from ragengine.corpus.passage import Passage
from ragengine.corpus.readers import read_passages
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.plan import ROWS_AT_ONCE, disk_needed, memory_needed
from ragengine.indexing.vector_sources import VectorFile, VectorSource, choose_source, fill_vectors, in_blocks
from ragengine.indexing.writer import counted, tuned_manifest, version, write_index_manifest
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    FORMAT,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress, phase_report
from ragengine.storage import folders
from ragengine.storage.npy import open_vectors

_DEFAULT_RECALL = 0.95
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
    """Add ``passages`` behind those of ``index``; ``bundle`` must be the one whose encoder made it.

    Passages and their vectors are given as for :func:`~ragengine.indexing.build.build_index`; passages
    without ids are numbered from the index's count on.  Raises :class:`PassagesError` where one has an id
    that the index has already, and what :func:`build_index` raises.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    passages = Path(passages)
    with _Old(Path(index)) as old:
        old.check_belongs_to(bundle)
        source = choose_source(
            passages, embeddings, bundle, device=device, threads=threads, batch_tokens=batch_tokens
        )
        created_from = {**old.manifest.created_from}
        created_from["added"] = [*created_from.get("added", []), passages.name]
        more = read_passages(passages, old.manifest.count)
        count = source.count or sizes.estimate_count(passages)
        size = sizes.passages_bytes(passages)
        return _grow(old, Path(index), more, source, count, size, created_from, threads, progress)


def merge_indexes(
    first: str | Path,
    second: str | Path,
    index: str | Path,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Write ``index`` with the passages of ``first``, then those of ``second``; both stay as they are.

    The FAISS index is that of ``first``, with the vectors of ``second`` added: give the larger one first.
    Raises :class:`IndexFolderError` where the two were made by different encoders, :class:`PassagesError`
    where passages share an id.
    """
    with _Old(Path(first)) as old, _Old(Path(second)) as other:
        ours, theirs = old.manifest, other.manifest
        if (ours.encoder.fingerprint, ours.encoder.kind) != (theirs.encoder.fingerprint, theirs.encoder.kind):
            raise IndexFolderError(
                f"The index {first} was built with the encoder {ours.encoder.name} "
                f"({ours.encoder.fingerprint[:12]}), {second} with {theirs.encoder.name} "
                f"({theirs.encoder.fingerprint[:12]}); only vectors of one encoder can be compared."
            )
        source = VectorSource(
            f"index {Path(second).name}", lambda store, row, done: in_blocks(other.vectors), theirs.count
        )
        created_from = {"merged": [ours.created_from, theirs.created_from]}
        more = _streamed(other.store)
        size = (Path(second) / PASSAGES_FILE).stat().st_size
        return _grow(old, Path(index), more, source, theirs.count, size, created_from, threads, progress)


def delete_passages(
    index: str | Path,
    ids: Iterable[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Delete the passages with these ids (all of them, where several share one).

    Those that stay keep their order and are rows 0, 1, ... again.  Raises :class:`InputError` for an id that
    no passage has, and where nothing would be left; then nothing is changed.
    """
    wanted = list(dict.fromkeys(ids))
    with _Old(Path(index)) as old:
        found = old.store.rows_of(wanted)
        absent = [id for id in wanted if id not in found]
        if absent:
            raise InputError(f"{index} has no passage with the id {_shown(absent)}; nothing was deleted.")
        gone = np.array(sorted(itertools.chain.from_iterable(found.values())), np.int64)
        manifest = old.manifest
        count = manifest.count - len(gone)
        if count == 0:
            raise InputError(f"{index} has no other passages; an index needs at least one.")
        if not len(gone):
            return manifest
        old.check_room(Path(index), 0, 0)
        kept = np.delete(np.arange(manifest.count), gone)
        with folders.replaced_folder(Path(index), FORMAT, IndexFolderError) as folder:
            deleted = set(gone.tolist())
            stay = (p for row, p in enumerate(_streamed(old.store)) if row not in deleted)
            write_passages(folder / PASSAGES_FILE, counted(stay, phase_report(progress, "passages")))
            source = VectorSource(f"index {Path(index).name}", lambda store, row, done: iter(()))
            blocks = _rows_in_blocks(old.vectors, kept)
            with VectorFile(folder / VECTORS_FILE, (count, manifest.dimension)) as stored:
                max_norm = fill_vectors(stored, blocks, source, phase_report(progress, "vectors"))
            faiss_index = old.read_faiss()
            if not training.remove(faiss_index, gone):
                faiss_index.reset()
            created_from = {**manifest.created_from}
            created_from["deleted"] = created_from.get("deleted", 0) + len(gone)
            draft = dataclasses.replace(manifest, count=count, max_norm=max_norm, created_from=created_from)
            _finish(folder, draft, faiss_index, old.questions(), threads, progress)
    return IndexManifest.read(index)


class _Old:
    """An index that a new one is made from, checked against its hashes."""

    def __init__(self, path: Path) -> None:
        PassageIndex.open(path, verify="sha256").close()
        self.path = path
        self.manifest = IndexManifest.read(path)
        self.vectors: HalfArray = open_vectors(path / VECTORS_FILE, np.float16, IndexFolderError)
        self.store = PassageStore(path / PASSAGES_FILE)

    def __enter__(self) -> "_Old":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def read_faiss(self) -> Any:
        return read_faiss(self.path / FAISS_FILE, mapped=False)

    def questions(self) -> FloatArray | None:
        """The questions that the index was tuned with, where they were given."""
        if self.manifest.tuning is None or self.manifest.tuning.source == "passages":
            return None
        return np.array(open_vectors(self.path / QUERIES_FILE, np.float32, IndexFolderError))

    def check_belongs_to(self, bundle: Bundle) -> None:
        with PassageIndex.open(self.path, verify="size") as opened:
            opened.check_belongs_to(bundle)

    def check_room(self, target: Path, more: int, more_bytes: int) -> None:
        """Check that there is room for a new index of this and ``more`` passages of ``more_bytes``."""
        count, dimension = self.manifest.count + more, self.manifest.dimension
        empty = training.empty_faiss_index(self.manifest.factory, dimension)
        texts = (self.path / PASSAGES_FILE).stat().st_size + more_bytes
        resources.check_memory(memory_needed(empty, count, dimension), self.manifest.factory)
        resources.check_disk(target, disk_needed(empty, count, dimension, texts))


def _grow(
    old: _Old,
    target: Path,
    more: Iterator[Passage],
    source: VectorSource,
    more_count: int,
    more_bytes: int,
    created_from: dict[str, Any],
    threads: int | None,
    progress: Progress | None,
) -> IndexManifest:
    """Write ``target``: the passages and vectors of ``old``, then ``more``."""
    manifest = old.manifest
    old.check_room(target, more_count, more_bytes)
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        passages = itertools.chain(_streamed(old.store), more)
        path = folder / PASSAGES_FILE
        count = write_passages(path, counted(passages, phase_report(progress, "passages")))
        stored = VectorFile(folder / VECTORS_FILE, (count, manifest.dimension))
        with contextlib.closing(PassageStore(path)) as store, stored:
            _check_new(store, manifest.count, source, old.path)
            for block in in_blocks(old.vectors):
                stored.append(block)
            new = source.blocks(store, manifest.count, 0)
            report = phase_report(progress, "vectors")
            norm = fill_vectors(stored, new, source, report, first=manifest.count)
        draft = dataclasses.replace(
            manifest, count=count, max_norm=max(norm, manifest.max_norm), created_from=created_from
        )
        _finish(folder, draft, old.read_faiss(), old.questions(), threads, progress)
    return IndexManifest.read(target)


def _check_new(store: PassageStore, row: int, source: VectorSource, old: Path) -> None:
    """Check the passages from ``row`` on: there are some, as many as vectors, and no id of those before."""
    if store.count == row:
        raise PassagesError(f"There are no passages to add to {old}; give at least one.")
    source.check_count(store.count - row)
    repeated = store.repeated_ids(row, _SHOWN_IDS + 1)
    if repeated:
        raise PassagesError(
            f"{old} has passages with the id {_shown(repeated)} already; delete them first "
            "(ragengine index delete), or give the new ones other ids."
        )


def _finish(
    folder: Path,
    draft: IndexManifest,
    faiss_index: Any,
    questions: FloatArray | None,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Add what ``faiss_index`` lacks of the stored vectors, tune, and write the rest of the folder."""
    vectors = open_vectors(folder / VECTORS_FILE, np.float16, IndexFolderError)
    training.add(faiss_index, vectors, draft.factory, threads, phase_report(progress, "add"))
    training.write_faiss(faiss_index, folder / FAISS_FILE)
    target = _DEFAULT_RECALL if draft.tuning is None else draft.tuning.target
    draft = dataclasses.replace(draft, created_by=f"ragengine {version()}", timings={})
    write_index_manifest(
        folder, tuned_manifest(folder, draft, faiss_index, vectors, questions, target, threads, progress)
    )


def _streamed(store: PassageStore) -> Iterator[Passage]:
    return itertools.chain.from_iterable(store.blocks(_STORE_BLOCK))


def _rows_in_blocks(vectors: HalfArray, rows: RowArray) -> Iterator[HalfArray]:
    return (vectors[rows[start : start + ROWS_AT_ONCE]] for start in range(0, len(rows), ROWS_AT_ONCE))


def _shown(ids: list[str]) -> str:
    shown = ", ".join(repr(id) for id in ids[:_SHOWN_IDS])
    return shown if len(ids) <= _SHOWN_IDS else f"{shown} and others"
