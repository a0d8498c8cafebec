"""A changed index: the old one without some of its passages, with others behind them.

It is written as a new folder, which takes the place of the old one when it is whole: a search that runs, and
a process that is killed, leave one or the other.  What FAISS learned in training (rotation, lists, codes)
stays; the search settings are tuned and the recall is measured again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.vector_sources import VectorSource
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    FORMAT,
    NUMBERED_FILE,
    PASSAGES_FILE,
    QUERIES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from ragengine.retrieval.passage_store import PassageStore
from ragengine.runtime.progress import Progress
from ragengine.storage.folders import Verify
from ragengine.storage.foreign_files import why
from ragengine.storage.npy import map_npy, open_vectors

DEFAULT_RECALL = 0.95
"""Of an index whose manifest does not say what was asked for."""
_STORE_BLOCK = 4096


class OldIndex:
    """An index that a new one is made from, checked against its hashes."""

    format = FORMAT

    def __init__(self, path: Path, bundle: Bundle | None = None, *, verify: Verify = "sha256") -> None:
        """Open the index at ``path``, which must belong to ``bundle`` where one is given."""
        with PassageIndex.open(path, verify=verify) as index:
            if bundle is not None:
                index.check_belongs_to(bundle)
            self.manifest = index.manifest
        self.path = path
        self.vectors: HalfArray = open_vectors(path / VECTORS_FILE, np.float16, IndexFolderError)
        self.store = PassageStore(path / PASSAGES_FILE)
        self.passages_bytes = self.store.path.stat().st_size
        self._numbered = self._read_numbered()

    def __enter__(self) -> "OldIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def passages(self) -> Iterator[Passage]:
        """The passages in order."""
        stored = itertools.chain.from_iterable(self.store.blocks(_STORE_BLOCK))
        for passage, numbered in zip(stored, self._numbered, strict=True):
            yield dataclasses.replace(passage, numbered=True) if numbered else passage

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids`` that a passage has, ascending."""
        return self.store.rows_of(ids)

    def fetch(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order."""
        return self.store.fetch(rows)

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

    @property
    def target(self) -> float:
        """The recall that the index was tuned for."""
        return DEFAULT_RECALL if self.manifest.tuning is None else self.manifest.tuning.target


@dataclass(frozen=True)
class Addition:
    """What is added to an index: about ``count`` passages of up to ``bytes``, with their vectors."""

    passages: Iterable[Passage]
    count: int
    bytes: int
    source: VectorSource


@dataclass(frozen=True)
class Rewritten:
    """What is written again of the index at ``path``: so many ``rows``, whose texts are of so many bytes."""

    path: Path
    manifest: IndexManifest
    rows: int
    passages_bytes: int


@dataclass(frozen=True)
class Revision:
    """What changes in an index.

    command       the command that changes it
    created_from  the history of the new index
    gone          rows that are left out, ascending
    renewed       rows whose passages become these, of the same title and text
    added         what comes behind those that stay
    fixed         how many of those that stay keep their ids, whatever ids are added; all where None
    """

    command: str
    created_from: dict[str, Any]
    gone: RowArray = field(default_factory=lambda: np.empty(0, np.int64))
    renewed: Mapping[int, Passage] = field(default_factory=dict)
    added: Addition | None = None
    fixed: int | None = None


def revise(
    old: OldIndex,
    index: Path,
    revision: Revision,
    threads: int | None,
    progress: Progress | None,
    *,
    force: bool = True,
) -> IndexManifest:
    """Write ``index``: ``old`` with a revision, which leaves at least one passage.

    Without ``force`` no other index is replaced.

    Raises:
        PassagesError: nothing is added although something should be, its vectors do not fit, or its ids are
            there already.
        IndexFolderError: the index cannot be written, or there is not enough memory or disk.
    """
    rewritten = Rewritten(old.path, old.manifest, old.manifest.count, old.passages_bytes)
    check_room(rewritten, index, revision.added)
    fixed = old.manifest.count - len(revision.gone) if revision.fixed is None else revision.fixed
    with IndexWriter.open(
        index, {"command": revision.command}, force=force, threads=threads, progress=progress
    ) as writer:
        draft = write_revised(writer, old, revision, PassageIds(fixed, old.path), old.path)
        writer.finish(draft, old.questions(), old.target)
        writer.carry_calibration(old.path)
    return IndexManifest.read(index)


def write_revised(
    writer: IndexWriter, old: OldIndex, revision: Revision, ids: PassageIds, name: Path
) -> IndexManifest:
    """Write passages, vectors and FAISS index of ``old`` with a revision.

    ``name`` is what messages call the index.

    Returns:
        What its manifest says as far as it is known before :meth:`IndexWriter.finish`.
    """
    gone, added, manifest = revision.gone, revision.added, old.manifest
    kept = np.delete(np.arange(manifest.count), gone)
    passages = itertools.chain(kept_passages(old, revision), () if added is None else added.passages)
    writer.write_passages(passages, ids)
    if added is not None:
        if writer.count == len(kept):
            raise PassagesError(f"There are no passages to add to {name}; give at least one.")
        added.source.check_count(writer.count - len(kept))
    source = None if added is None else added.source
    writer.write_vectors(source, manifest.dimension, old.vectors, kept if len(gone) else None)
    faiss_index = old.read_faiss()
    if len(gone) and not training.remove(faiss_index, gone):
        faiss_index.reset()
    writer.write_faiss(manifest.factory, manifest.seed, faiss_index)
    max_norm = 0.0 if len(gone) else manifest.max_norm  # of what is gone, perhaps
    return dataclasses.replace(manifest, created_from=revision.created_from, max_norm=max_norm)


def check_room(old: Rewritten, index: Path, added: Addition | None = None) -> None:
    """Check that FAISS's structure can be changed, and that there is room to write ``index``."""
    manifest = old.manifest
    try:
        parse_factory(manifest.factory, manifest.dimension)
    except InputError as reason:
        raise IndexFolderError(f"The index {old.path} can be searched, but not changed: {reason}") from reason
    count, texts = (0, 0) if added is None else (added.count, added.bytes)
    resources.check_room(
        index,
        manifest.factory,
        old.rows + count,
        manifest.dimension,
        texts=old.passages_bytes + texts,
        memory=0 if added is None else added.source.memory,
    )


def kept_passages(old: OldIndex, revision: Revision) -> Iterator[Passage]:
    """The passages of ``old`` that a revision leaves, as they are then."""
    gone = set(revision.gone.tolist())
    for row, passage in enumerate(old.passages()):
        if row not in gone:
            yield revision.renewed.get(row, passage)
