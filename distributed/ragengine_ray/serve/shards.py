"""Searching an index in shards: a deployment a shard, and what an engine replica has in its place."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ragengine.arrays import FloatArray, RowArray
from ragengine.confidence.model import ConfidenceModel
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine_ray.serve.calls import Peer, check_version
from ragengine_ray.serve.options import AppOptions
from ragengine_serve.configuration.settings import ModelFolders

_METHODS = frozenset(
    {
        "candidates",
        "passages",
        "vectors",
        "rows_of",
        "matching_count",
        "matching_rows",
        "metadata_fields",
    }
)
"""What a shard is asked over the cluster."""


class ShardServer:
    """A deployment: one shard of the index, which each replica maps whole."""

    def __init__(self, options: AppOptions, number: int) -> None:
        folder, settings = options.settings.models[0].index, options.settings
        entry = ShardsManifest.read(folder).shards[number]
        if entry.folder is None:
            raise IndexFolderError(
                f"Shard {number} of {folder} names servers in the place of a folder, which Ray Serve cannot "
                "ask; copy its folder there, and gather the shards again."
            )
        self._shard = LocalShard.open(folder / entry.folder, verify=settings.verify)
        self._shard.index.warm_up()

    async def ask(self, version: str, method: str, *arguments: Any) -> Any:
        """What the shard with the fingerprint ``version`` answers.

        Raises:
            VersionError: this replica has another shard.
        """
        check_version("shard", version, self._shard.fingerprint)
        assert method in _METHODS
        return await asyncio.to_thread(getattr(self._shard, method), *arguments)

    async def check_health(self) -> None:
        """Search once."""
        await asyncio.to_thread(self._shard.index.warm_up)


class PeerShard:
    """A shard that :class:`ShardServer` searches."""

    def __init__(self, name: str, entry: ShardEntry, peer: Peer) -> None:
        self.name, self.count, self.fingerprint = name, entry.count, entry.fingerprint or ""
        self._peer = peer

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """As :meth:`Shard.candidates`."""
        found: Candidates = self._ask("candidates", questions, plan, filter)
        return found

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`Shard.passages`."""
        found: list[Passage] = self._ask("passages", list(rows))
        return found

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`Shard.vectors`."""
        found: FloatArray = self._ask("vectors", rows)
        return found

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`Shard.rows_of`."""
        found: dict[str, list[int]] = self._ask("rows_of", list(ids))
        return found

    def matching_count(self, filter: PassageFilter) -> int:
        """As :meth:`Shard.matching_count`."""
        found: int = self._ask("matching_count", filter)
        return found

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """As :meth:`Shard.matching_rows`."""
        found: RowArray = self._ask("matching_rows", filter)
        return found

    def metadata_fields(self, most: int) -> list[str]:
        """As :meth:`Shard.metadata_fields`."""
        found: list[str] = self._ask("metadata_fields", most)
        return found

    def close(self) -> None:
        """Nothing: the deployment lives on."""

    def wait(self, seconds: float) -> None:
        """Return when the deployment answers."""
        self._peer.ask("ask", self.fingerprint, "metadata_fields", 1, timeout=seconds)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._peer.ask("ask", self.fingerprint, method, *arguments)


def open_peers(folders: ModelFolders, peer: Callable[[int], Peer], start_timeout: float) -> ShardedIndex:
    """The index whose shards are deployments; ``peer`` finds that of a number.

    Raises:
        UnavailableError: one of them does not answer within ``start_timeout`` seconds.
    """
    manifest = ShardsManifest.read(folders.index)
    shards = [
        PeerShard(f"shard {number} of {folders.index}", entry, peer(number))
        for number, entry in enumerate(manifest.shards)
        if entry.count
    ]
    for shard in shards:
        shard.wait(start_timeout)
    return ShardedIndex(folders.index, manifest, shards, ConfidenceModel.read(folders.index))


def shard_numbers(folders: ModelFolders) -> list[int]:
    """The shards that have passages."""
    return [number for number, entry in enumerate(ShardsManifest.read(folders.index).shards) if entry.count]
