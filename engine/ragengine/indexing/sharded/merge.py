"""Merging two indexes in shards: the shards of both are those of the new one."""

from pathlib import Path

from ragengine.errors import IndexFolderError
from ragengine.indexing.revision import Revision
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.sharded.revise import revise_shards
from ragengine.retrieval import history
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.runtime.progress import Progress


def merge_shards(
    first: OldShards,
    second: OldShards,
    index: Path,
    threads: int | None,
    progress: Progress | None,
    *,
    force: bool,
) -> ShardsManifest:
    """Write an index with the shards of two of one encoder; raises as :func:`merge_indexes`."""
    ours, theirs = first.manifest, second.manifest
    if ours.common_fingerprint != theirs.common_fingerprint:
        raise IndexFolderError(
            f"The shards of {first.path} ({ours.factory}, {ours.quantizer[:12]}) and of {second.path} "
            f"({theirs.factory}, {theirs.quantizer[:12]}) were trained apart, so FAISS's scores of one say "
            "nothing beside those of the other; merge the indexes that they were made from and divide the "
            "result, or add the passages of one to the other (ragengine index list --json, then add)."
        )
    created_from = history.of_merged(ours.created_from, theirs.created_from)
    revision = Revision("merge", created_from, fixed=ours.count)
    return revise_shards(first.followed_by(second), index, revision, threads, progress, force=force)
