"""Building the FAISS index of an index again from its stored vectors."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ragengine.errors import IndexFolderError
from ragengine.indexing import resources
from ragengine.indexing.changing import old_index
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.inputs import check_threads, checked_recall
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.plan import CHOSEN, IndexPlan, plan_index
from ragengine.indexing.sharded.compact import compact_shards
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import checked_path


def compact_index(
    index: str | Path,
    *,
    factory: str | None = None,
    recall: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Build the FAISS index again of the vectors that are there, as ``ragengine index compact`` does.

    Deletions leave nothing behind, but what FAISS learned from the passages of the build stays through every
    change: after many of them its lists are uneven, or it has too many or too few.  Nothing is encoded.

    Args:
        index: the index folder; the new one takes its place when it is whole.
        factory: a FAISS factory string; without one, that of the user if there was one, else what
            :func:`build_index` takes for so many passages.
        recall: the recall at 5 documents to tune for; as before where None.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`.
        on_plan: called with the ``factory`` and the ``reason`` for it.

    Returns:
        The manifest of the index.

    Raises:
        InputError: ``factory`` or ``recall`` cannot be used.
        IndexFolderError: the index is not whole, it cannot be written, or there is not enough memory or disk.
    """
    check_threads(threads)
    recall = None if recall is None else checked_recall(recall)
    index = checked_path(index, IndexFolderError)
    with old_index(index) as old:
        manifest = old.manifest
        plan = _plan(manifest, factory)
        parse_factory(plan.factory, manifest.dimension).check_count(manifest.count)
        resources.check_room(
            index,
            plan.factory,
            manifest.count,
            manifest.dimension,
            texts=old.passages_bytes,
        )
        if on_plan is not None:
            on_plan(plan)
        target = old.target if recall is None else recall
        if isinstance(old, OldShards):
            return compact_shards(old, plan, target, threads, progress)
        with IndexWriter.open(index, {"command": "compact"}, threads=threads, progress=progress) as writer:
            writer.write_passages(old.passages(), PassageIds(manifest.count, old.path))
            writer.write_vectors(None, manifest.dimension, old.vectors, np.arange(manifest.count))
            writer.write_faiss(plan.factory, manifest.seed)
            draft = dataclasses.replace(manifest, factory=plan.factory, reason=plan.reason, max_norm=0.0)
            writer.finish(draft, old.questions(), target)
            writer.carry_calibration(old.path)
    return IndexManifest.read(index)


def _plan(manifest: IndexManifest, factory: str | None) -> IndexPlan:
    if factory is not None:
        return IndexPlan(factory, CHOSEN)
    if manifest.reason == CHOSEN:
        return IndexPlan(manifest.factory, CHOSEN)
    return plan_index(manifest.count, manifest.dimension)
