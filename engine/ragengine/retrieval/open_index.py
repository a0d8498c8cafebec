"""Opening an index of passages, whichever form its folder has."""

from pathlib import Path

from ragengine.errors import RagEngineError
from ragengine.retrieval.gpu.placement import no_gpu_build
from ragengine.retrieval.gpu.searcher import Device, faiss_build
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.sharding.manifest import is_sharded
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.storage.folders import Verify


def open_index(
    path: str | Path,
    *,
    verify: Verify = "sha256",
    device: Device = "cpu",
    remote: RemoteOptions | None = None,
    allow_partial: bool = False,
) -> SearchedIndex:
    """Open an index folder, or a folder of shards, as :meth:`PassageIndex.open` does.

    ``remote`` says how shards at the addresses of ``shards.json`` are asked; without it none is: who made
    the folder must not choose whom this machine talks to.  With ``allow_partial`` these may be missing.
    """
    if is_sharded(path):
        if remote is None:
            return ShardedIndex.open(path, verify=verify, device=device)
        from ragengine.retrieval.sharding.remote.connecting import connector

        connect = connector(remote, allow_partial=allow_partial)
        return ShardedIndex.open(path, verify=verify, device=device, connect=connect)
    return PassageIndex.open(path, verify=verify, device=device)


def describe_placement(path: str | Path) -> str:
    """Where ``device="auto"`` would let the index at ``path`` be searched on this machine, and why."""
    try:
        build = faiss_build()
        if not build.gpu:  # whatever the index is
            return str(no_gpu_build(build))
        with open_index(path, verify="size") as opened:
            return str(opened.best_placement())
    except RagEngineError as reason:
        return f"not known: {reason}"
