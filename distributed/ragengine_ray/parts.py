"""Parts of a build: passages and their vectors, finished one by one, so that none is encoded twice.

A part is a folder of ``passages.sqlite``, ``vectors.npy``, where passages came without ids ``numbered.npy``,
and a manifest with the hashes of these files.
"""

import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragengine.arrays import HalfArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.indexing.vector_sources import PendingPassages, VectorFile, VectorSource, fill_vectors
from ragengine.retrieval.manifest import NUMBERED_FILE, PASSAGES_FILE, VECTORS_FILE
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.runtime.progress import silent
from ragengine.storage import folders
from ragengine.storage.atomic import sync_folder
from ragengine.storage.npy import map_npy, open_vectors

_FORMAT: Final = "ragengine-part"
_FORMAT_VERSION: Final = 1
_READ_TOGETHER: Final = 4096


@dataclass(frozen=True)
class Part:
    """The passages of rows ``first`` to ``stop`` - 1 of the corpus."""

    first: int
    stop: int

    @property
    def count(self) -> int:
        """How many passages it has."""
        return self.stop - self.first

    def folder(self, workspace: Path) -> Path:
        """Where it is."""
        return workspace / f"part-{self.first:012d}"


@dataclass(frozen=True)
class _Manifest:
    first: int
    count: int
    files: dict[str, folders.FileEntry]


def plan_parts(count: int, size: int) -> list[Part]:
    """Parts of ``size`` of ``count`` passages, the last one smaller."""
    return [Part(first, min(first + size, count)) for first in range(0, count, size)]


def write_part(
    workspace: Path, part: Part, passages: Sequence[Passage], source: VectorSource, dimension: int
) -> None:
    """Make the vectors of a part by ``source`` and put its folder in place, unless it is there.

    Several may write one part at the same time, as in a cluster that has lost sight of a node: each has a
    folder of its own, and the first that is whole stays.
    """
    folder = part.folder(workspace)
    own = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=workspace))
    try:
        write_passages(own / PASSAGES_FILE, passages)
        numbered = np.array([passage.numbered for passage in passages], np.uint8)
        if numbered.any():
            with VectorFile(own / NUMBERED_FILE, numbered.shape, dtype=np.uint8) as file:
                file.append(numbered)
        with (
            contextlib.closing(PassageStore(own / PASSAGES_FILE)) as store,
            VectorFile(own / VECTORS_FILE, (part.count, dimension)) as stored,
        ):
            fill_vectors(stored, source, PendingPassages(store, 0, 0), silent, lambda max_norm: None)
        content = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "first": part.first}
        folders.write_manifest(own, content | {"count": part.count})
        sync_folder(own)
        _rename_once(own, folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def is_whole(workspace: Path, part: Part, verify: folders.Verify) -> bool:
    """Whether a part is finished and undamaged."""
    try:
        check_part(workspace, part, verify)
    except IndexFolderError:
        return False
    return True


def check_part(workspace: Path, part: Part, verify: folders.Verify) -> None:
    """Raise :class:`IndexFolderError` where a part is missing or damaged."""
    folder = part.folder(workspace)
    manifest = folders.read_manifest(folder, _Manifest, _FORMAT, _FORMAT_VERSION, IndexFolderError)
    if (manifest.first, manifest.count) != (part.first, part.count):
        raise IndexFolderError(
            f"{folder} has {manifest.count} passages from row {manifest.first} on, not {part.count} from "
            f"row {part.first}; remove it."
        )
    needed = (PASSAGES_FILE, VECTORS_FILE)
    folders.check_files(folder, manifest.files, IndexFolderError, needed=needed, verify=verify)


def remove_part(workspace: Path, part: Part) -> None:
    """Remove a part that is damaged or no longer needed."""
    shutil.rmtree(part.folder(workspace), ignore_errors=True)


def remove_unfinished(workspace: Path) -> None:
    """Remove what killed writers of parts have left."""
    for path in workspace.glob(".part-*"):
        shutil.rmtree(path, ignore_errors=True)


def read_passages(workspace: Path, parts: Sequence[Part], rows: range) -> Iterator[Passage]:
    """The passages of ``rows`` in order, as the corpus gave them."""
    for part, skip, stop in _overlaps(parts, rows):
        folder = part.folder(workspace)
        numbers = folder / NUMBERED_FILE
        numbered = map_npy(numbers).astype(bool) if numbers.exists() else np.zeros(part.count, bool)
        with contextlib.closing(PassageStore(folder / PASSAGES_FILE)) as store:
            stored = itertools.chain.from_iterable(store.blocks(_READ_TOGETHER, skip))
            for row, passage in zip(range(skip, stop), stored, strict=False):
                yield dataclasses.replace(passage, numbered=bool(numbered[row]))


def read_vectors(workspace: Path, parts: Sequence[Part], rows: range) -> Iterator[HalfArray]:
    """The vectors of ``rows`` in order, in blocks of fp16 [K, E]."""
    for part, skip, stop in _overlaps(parts, rows):
        yield _vectors(workspace, part)[skip:stop]


def _overlaps(parts: Sequence[Part], rows: range) -> Iterator[tuple[Part, int, int]]:
    """The parts that have some of ``rows``, and from which to which of its own rows these are."""
    for part in parts:
        skip, stop = max(rows.start, part.first) - part.first, min(rows.stop, part.stop) - part.first
        if skip < stop:
            yield part, skip, stop


class PartVectors:
    """The vectors of parts as one array [N, E], of which rows are read that lie anywhere."""

    def __init__(self, workspace: Path, parts: Sequence[Part], dimension: int) -> None:
        """``parts`` are those of the whole corpus, in order."""
        self._workspace, self._parts = workspace, parts
        self._firsts = np.array([part.first for part in parts])
        self.shape = (parts[-1].stop, dimension)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: RowArray | slice) -> HalfArray:
        """The vectors of ``rows``, ascending."""
        wanted = np.arange(len(self))[rows]
        found = np.empty((len(wanted), self.shape[1]), np.float16)
        owners = np.searchsorted(self._firsts, wanted, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            part = self._parts[owner]
            found[mine] = _vectors(self._workspace, part)[wanted[mine] - part.first]
        return found


def _vectors(workspace: Path, part: Part) -> Any:
    return open_vectors(part.folder(workspace) / VECTORS_FILE, np.float16, IndexFolderError)


def _rename_once(source: Path, target: Path) -> None:
    """Rename a folder, unless one with something in it has the name."""
    try:
        os.rename(source, target)
    except OSError:
        if not target.is_dir():
            raise
