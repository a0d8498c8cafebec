"""``shards.json``: what an index in shards is, and where its shards are."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ragengine.confidence.corpus import fingerprint
from ragengine.errors import IndexFolderError
from ragengine.retrieval.history import flat_history
from ragengine.retrieval.manifest import QUERIES_FILE, IndexManifest
from ragengine.retrieval.structure import Structure
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.ownership import SHARDS
from ragengine.storage.schema import Count, FileName, Hash, Pattern, Range

FORMAT = "ragengine-shards"
FORMAT_VERSION = 1
QUESTIONS_FILES = (QUERIES_FILE, "queries-2.npy")
"""Names for the questions of the recall: shards that are gathered again take the one that is free."""


@dataclass(frozen=True)
class ShardEntry:
    """One shard: rows ``first_row`` to ``first_row + count - 1`` of the whole.

    first_row    its first row
    count        its number of passages
    fingerprint  of its index (:func:`~ragengine.retrieval.manifest.manifest_fingerprint`); None if empty
    folder       the index folder, inside that of ``shards.json``; None where it lies elsewhere
    addresses    the servers that search it, each with all of it (replicas); none where this process does
    """

    first_row: Count
    count: Annotated[int, Range(0, 1 << 48)]
    fingerprint: Hash | None = None
    folder: FileName | None = None
    addresses: tuple[Annotated[str, Pattern(r"[!-~]{1,500}", "an address without spaces")], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShardsManifest(IndexManifest):
    """What an index in shards is: the content of its ``shards.json``.

    The fields of :class:`IndexManifest` are those of the whole: its count, search settings and recall.  A
    shard's own settings are not used.

    shards              the shards, in the order of their rows
    structure           what the FAISS indexes of all shards are
    quantizer           hash of what FAISS learned, equal in all shards (centroids, rotation, codebooks)
    common_fingerprint  what all shards share: encoder, dimension, factory and quantizer
    """

    shards: tuple[ShardEntry, ...]
    structure: Structure
    quantizer: Hash
    common_fingerprint: Hash

    @classmethod
    def read(cls, path: str | Path, file_name: str = SHARDS) -> "ShardsManifest":
        """Read ``shards.json`` of a folder, or its draft ``file_name``; its shards are not looked at.

        Raises:
            IndexFolderError: there is none, or it cannot be used.
        """
        folder = checked_path(path, IndexFolderError)
        manifest = folders.read_manifest(
            folder, cls, FORMAT, FORMAT_VERSION, IndexFolderError, file_name=file_name
        )
        manifest = replace(manifest, created_from=flat_history(manifest.created_from))
        if errors := manifest.errors():
            raise IndexFolderError(f"{folder / file_name} is damaged: {'; '.join(errors)}; write it again.")
        return manifest

    def errors(self) -> list[str]:
        """What in it contradicts itself."""
        found, row = [], 0
        for number, shard in enumerate(self.shards):
            if shard.first_row != row:
                found.append(f"shard {number} begins with row {shard.first_row} instead of {row}")
            if shard.count and (shard.fingerprint is None or not (shard.folder or shard.addresses)):
                found.append(f"shard {number} lacks its fingerprint, or a folder and an address")
            row = shard.first_row + shard.count
        if row != self.count:
            found.append(f"its shards have {row} passages, it says {self.count}")
        if self.common_fingerprint != common_fingerprint(self, self.quantizer):
            found.append("common_fingerprint is not that of encoder, dimension, factory and quantizer")
        return found

    @property
    def content(self) -> dict[str, Any]:
        """The JSON values of the file."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}


def shard_folder(number: int) -> str:
    """The name of the index folder of shard ``number``."""
    return f"shard-{number:04}"


def is_sharded(path: str | Path) -> bool:
    """Whether there is a ``shards.json`` in the folder ``path``."""
    # False where a path is impossible
    return isinstance(path, str | Path) and os.path.isfile(os.path.join(path, SHARDS))  # noqa: PTH113, PTH118


def read_index_manifest(path: str | Path) -> IndexManifest:
    """The manifest of an index folder, or of a folder of shards: a :class:`ShardsManifest`.

    Raises:
        IndexFolderError: there is neither, or it cannot be used.
    """
    return ShardsManifest.read(path) if is_sharded(path) else IndexManifest.read(path)


def common_fingerprint(manifest: IndexManifest, quantizer: str) -> str:
    """What the shards of one index share: they may be searched together where it is equal."""
    return fingerprint(
        {
            "encoder": manifest.encoder.fingerprint,
            "dimension": manifest.dimension,
            "factory": manifest.factory,
            "quantizer": quantizer,
        }
    )
