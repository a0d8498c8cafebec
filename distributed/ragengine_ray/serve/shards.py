"""Searching an index in shards: a deployment a shard, and what an engine replica has in its place."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from ragengine.confidence.model import ConfidenceModel
from ragengine.errors import IndexFolderError
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine_ray.asked_shard import ASKED, AskedShard
from ragengine_ray.serve.calls import Peer, check_version
from ragengine_ray.serve.options import AppOptions
from ragengine_serve.configuration.settings import ModelFolders


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
        assert method in ASKED
        return await asyncio.to_thread(getattr(self._shard, method), *arguments)

    async def check_health(self) -> None:
        """Search once."""
        await asyncio.to_thread(self._shard.index.warm_up)


class PeerShard(AskedShard):
    """A shard that :class:`ShardServer` searches."""

    def __init__(self, name: str, entry: ShardEntry, peer: Peer) -> None:
        super().__init__(name, entry, partial(peer.ask, "ask", entry.fingerprint or ""))
        self._peer = peer

    def wait(self, seconds: float) -> None:
        """Return when the deployment answers."""
        self._peer.ask("ask", self.fingerprint, "metadata_fields", 1, timeout=seconds)


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
