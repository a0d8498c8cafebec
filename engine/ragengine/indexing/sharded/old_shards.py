"""`OldShards`: an index in shards that a new one is made from."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.indexing.revision import DEFAULT_RECALL, OldIndex
from ragengine.retrieval.sharding.manifest import FORMAT, QUESTIONS_FILES, ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.storage import folders
from ragengine.storage.joined_rows import joined_rows
from ragengine.storage.npy import open_vectors


@dataclass(frozen=True, eq=False)
class OldShards:
    """As :class:`OldIndex`, for an index in shards, all of which are folders of this machine.

    path      its folder
    manifest  what its ``shards.json`` says
    parts     the shards that have passages
    """

    path: Path
    manifest: ShardsManifest
    parts: tuple[OldIndex, ...]
    format: ClassVar[str] = FORMAT

    @classmethod
    def open(cls, path: Path, bundle: Bundle | None = None) -> "OldShards":
        """Open the shards at ``path``, which must belong to ``bundle`` where one is given.

        Raises:
            IndexFolderError: a shard is not whole, lies elsewhere, or is of another encoder.
        """
        manifest = ShardsManifest.read(path)
        there = [(number, entry) for number, entry in enumerate(manifest.shards) if entry.count]
        for number, entry in there:
            if entry.folder is None or not (path / entry.folder).is_dir():
                raise IndexFolderError(
                    f"Shard {number} of {path} is not in that folder, and an index is changed where all of "
                    "its shards are; copy the shard's folder there."
                )
        with ShardedIndex.open(path, verify="sha256") as index:
            if bundle is not None:
                index.check_belongs_to(bundle)
        parts = tuple(OldIndex(path / str(entry.folder), verify="size") for _, entry in there)
        return cls(path, manifest, parts)

    def __enter__(self) -> "OldShards":
        return self

    def __exit__(self, *_: object) -> None:
        for part in self.parts:
            part.store.close()

    def followed_by(self, other: "OldShards") -> "OldShards":
        """The shards of both, in one index: everything else of it is as in this one."""
        ours, theirs = self.manifest, other.manifest
        moved = [
            dataclasses.replace(entry, first_row=entry.first_row + ours.count) for entry in theirs.shards
        ]
        manifest = dataclasses.replace(
            ours,
            count=ours.count + theirs.count,
            shards=(*ours.shards, *moved),
            max_norm=max(ours.max_norm, *(part.manifest.max_norm for part in other.parts)),
        )
        return OldShards(self.path, manifest, (*self.parts, *other.parts))

    @property
    def entries(self) -> Sequence[ShardEntry]:
        """What ``shards.json`` says of :attr:`parts`."""
        return [entry for entry in self.manifest.shards if entry.count]

    @property
    def passages_bytes(self) -> int:
        """The size of the files of passages."""
        return sum(part.passages_bytes for part in self.parts)

    @property
    def vectors(self) -> HalfArray:
        """The stored vectors of all shards; what is read is a copy."""
        return joined_rows([part.vectors for part in self.parts])

    def passages(self) -> Iterator[Passage]:
        """The passages in order."""
        for part in self.parts:
            yield from part.passages()

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids`` that a passage has, ascending."""
        wanted = list(ids)
        found: dict[str, list[int]] = {}
        for part, entry in zip(self.parts, self.entries, strict=True):
            for id, rows in part.rows_of(wanted).items():
                found.setdefault(id, []).extend(row + entry.first_row for row in rows)
        return found

    def fetch(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order."""
        first_rows = [entry.first_row for entry in self.entries]
        found = []
        for row in rows:
            number = int(np.searchsorted(first_rows, row, side="right")) - 1
            found += self.parts[number].fetch([row - first_rows[number]])
        return found

    def questions(self) -> FloatArray | None:
        """The questions that the search was tuned with, where they were given and are kept."""
        files = self.manifest.files
        name = next((name for name in QUESTIONS_FILES if name in files), None)
        if name is None:
            return None
        folders.check_files(self.path, {name: files[name]}, IndexFolderError)
        return np.array(open_vectors(self.path / name, np.float32, IndexFolderError))

    @property
    def target(self) -> float:
        """The recall that the search was tuned for."""
        return DEFAULT_RECALL if self.manifest.tuning is None else self.manifest.tuning.target
