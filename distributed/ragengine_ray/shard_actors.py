"""Actors that each hold one shard of an index, for the workers of a training on a cluster."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import OptionsError
from ragengine.indexing.shard import shard_index
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest, is_sharded
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
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


class ActorShard:
    """The shard that an actor holds, as :class:`~ragengine.retrieval.sharding.shard.Shard` says."""

    def __init__(self, actor: Any, folder: Path, entry: ShardEntry) -> None:
        self._actor, self._folder = actor, str(folder)
        self.name = f"shard {folder}, held by an actor"
        self.count = entry.count
        self.fingerprint = entry.fingerprint or ""

    def candidates(
        self, questions: FloatArray, plan: Plan, filter: PassageFilter | None = None
    ) -> Candidates:
        """Propose passages for questions, float32 [Q, E]."""
        found: Candidates = self._asked("candidates", questions, plan, filter)
        return found

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``."""
        found: list[Passage] = self._asked("passages", list(rows))
        return found

    def vectors(self, rows: RowArray) -> FloatArray:
        """The stored vectors of ``rows``, float32 [K, E]."""
        found: FloatArray = self._asked("vectors", rows)
        return found

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids``."""
        found: dict[str, list[int]] = self._asked("rows_of", list(ids))
        return found

    def matching_count(self, filter: PassageFilter) -> int:
        """How many passages match."""
        return int(self._asked("matching_count", filter))

    def matching_rows(self, filter: PassageFilter) -> RowArray:
        """Which passages match."""
        found: RowArray = self._asked("matching_rows", filter)
        return found

    def metadata_fields(self, most: int) -> list[str]:
        """The first names of metadata."""
        found: list[str] = self._asked("metadata_fields", most)
        return found

    def close(self) -> None:
        """The actors live on until the end of the run."""

    def _asked(self, method: str, *arguments: Any) -> Any:
        return ray.get(self._actor.call.remote(self._folder, method, *arguments))


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


def _shards(holders: Sequence[Any], folder: Path, manifest: ShardsManifest) -> list[ActorShard]:
    return [
        ActorShard(holders[number], folder / entry.folder, entry)
        for number, entry in enumerate(manifest.shards)
        if entry.count and entry.folder is not None
    ]
