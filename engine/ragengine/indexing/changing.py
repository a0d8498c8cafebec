"""Changing an index, whether it lies in one folder or in shards."""

from pathlib import Path
from typing import TypeAlias

from ragengine.bundle.bundle import Bundle
from ragengine.indexing.revision import OldIndex, Revision, revise
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.sharded.revise import revise_shards
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.sharding.manifest import is_sharded
from ragengine.runtime.progress import Progress

AnyOld: TypeAlias = OldIndex | OldShards
"""An index that a new one is made from."""


def old_index(path: Path, bundle: Bundle | None = None) -> AnyOld:
    """The index at ``path``, which must belong to ``bundle`` where one is given."""
    return OldShards.open(path, bundle) if is_sharded(path) else OldIndex(path, bundle)


def revise_index(
    old: AnyOld, revision: Revision, threads: int | None, progress: Progress | None
) -> IndexManifest:
    """Put ``old`` with a revision in the place of ``old``; raises as :func:`revise`."""
    if isinstance(old, OldShards):
        return revise_shards(old, old.path, revision, threads, progress)
    return revise(old, old.path, revision, threads, progress)
