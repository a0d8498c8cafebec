"""Actors that each hold one shard of an index, for the workers of a training on a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from ragengine.errors import OptionsError
from ragengine.indexing.shard import shard_index
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from ragengine.retrieval.sharding.manifest import ShardsManifest, is_sharded
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine_ray.asked_shard import AskedShard
from ragengine_train.live_retriever import RagengineIndex

_KEPT = 2  # a worker may still search the index that another has swapped


class _Holder:
    """Holds a shard, which it opens when it is asked: one that was started again has none open."""

    def __init__(self) -> None:
        self._open: dict[str, LocalShard] = {}

    def call(self, folder: str, method: str, *arguments: Any) -> Any:
        """What the shard in ``folder`` answers."""
        if folder not in self._open:
            while len(self._open) >= _KEPT:
                self._open.pop(next(iter(self._open))).close()
            self._open[folder] = LocalShard.open(Path(folder), verify="size")
        return getattr(self._open[folder], method)(*arguments)


class _Divider:
    """Divides the index of a training into shards, once for all workers."""

    def divide(self, index: str, shards: int) -> str:
        """The folder of the shards, beside ``index``."""
        path = Path(index)
        fingerprint = manifest_fingerprint(IndexManifest.read(path))
        folder = path.with_name(f"{path.name}.shards-{shards}-{fingerprint[:16]}")
        if not is_sharded(folder):
            shard_index(path, folder, shards=shards)
        return str(folder)


class ShardActors:
    """The actors of one run; those that die are started again."""

    def __init__(self, count: int) -> None:
        restarted = {"max_restarts": -1, "max_task_retries": -1}
        self.count = count
        self.divider = ray.remote(num_cpus=0, **restarted)(_Divider).remote()
        holder = ray.remote(**restarted)(_Holder)
        self.holders = [holder.remote() for _ in range(count)]


class ShardActorIndex(RagengineIndex):
    """An index that actors search, one a shard; the worker merges what they propose."""

    _index: ShardedIndex  # type: ignore[assignment]  # it takes a PassageIndex's place

    def __init__(self, actors: ShardActors, index: Path, n_docs: int) -> None:
        """Raises :class:`OptionsError` for fewer than ``n_docs`` passages."""
        folder = Path(ray.get(actors.divider.divide.remote(str(index.resolve()), actors.count)))
        manifest = ShardsManifest.read(folder)
        if manifest.count < n_docs:
            raise OptionsError(
                f"model.n_docs is {n_docs}, and {index} has {manifest.count} passages; ask for no more."
            )
        self._index = ShardedIndex(folder, manifest, _shards(actors.holders, folder, manifest))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors [..., E] of rows [...]."""
        found = self._index.vectors(rows.reshape(-1))
        return found.reshape(*rows.shape, found.shape[-1])


def _shards(holders: Sequence[Any], folder: Path, manifest: ShardsManifest) -> list[AskedShard]:
    return [
        AskedShard(
            f"shard {folder / entry.folder}, held by an actor", entry, _asking(actor, folder / entry.folder)
        )
        for actor, entry in zip(holders, manifest.shards, strict=True)
        if entry.count and entry.folder is not None
    ]


def _asking(actor: Any, folder: Path) -> Callable[..., Any]:
    """What asks ``actor`` for a method of the shard in ``folder``."""

    def ask(method: str, *arguments: Any) -> Any:
        return ray.get(actor.call.remote(str(folder), method, *arguments))

    return ask
