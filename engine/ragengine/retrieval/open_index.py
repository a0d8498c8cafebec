"""Opening an index of passages, whichever form its folder has."""

from pathlib import Path

from ragengine.errors import RagEngineError
from ragengine.retrieval.gpu.placement import no_gpu_build
from ragengine.retrieval.gpu.searcher import Device, faiss_build
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.sharding.manifest import is_sharded
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.storage.folders import Verify


def open_index(path: str | Path, *, verify: Verify = "sha256", device: Device = "cpu") -> SearchedIndex:
    """Open an index folder, or a folder of shards, as :meth:`PassageIndex.open` does."""
    if is_sharded(path):
        return ShardedIndex.open(path, verify=verify, device=device)
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
