"""Building the FAISS indexes of shards again from their stored vectors."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ragengine.errors import IndexFolderError
from ragengine.indexing import training
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.sharded.revise import finish_shards
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.sharding.manifest import FORMAT, ShardsManifest, shard_folder
from ragengine.retrieval.sharding.quantizer import check_can_divide
from ragengine.runtime.progress import Progress, phase_report
from ragengine.storage import folders


def compact_shards(
    old: OldShards, plan: IndexPlan, recall: float, threads: int | None, progress: Progress | None
) -> ShardsManifest:
    """Put shards with FAISS indexes of ``plan`` in the place of ``old``; raises as :func:`compact_index`.

    FAISS learns from a sample of all shards, the one that an index of their passages would take.
    """
    manifest = old.manifest
    shared = training.empty_faiss_index(plan.factory, manifest.dimension)
    check_can_divide(shared, f"of {plan.factory!r}")
    with folders.replaced_folder(old.path, FORMAT, IndexFolderError) as folder:
        report = phase_report(progress, "train")
        training.train(shared, old.vectors, plan.factory, manifest.seed, threads, report)
        numbers = [number for number, entry in enumerate(manifest.shards) if entry.count]
        parts: list[IndexManifest | None] = []
        for number, part in zip(numbers, old.parts, strict=True):
            path: Path = folder / shard_folder(number)
            with IndexWriter.open(path, {"command": "compact"}, threads=threads, progress=progress) as writer:
                ours = part.manifest
                writer.write_passages(part.passages(), PassageIds(ours.count, old.path))
                writer.write_vectors(None, ours.dimension, part.vectors, np.arange(ours.count))
                writer.write_faiss(plan.factory, manifest.seed, import_faiss().clone_index(shared))
                draft = replace(
                    ours,
                    factory=plan.factory,
                    reason=plan.reason,
                    search={},
                    max_norm=0.0,
                    files={},
                    timings={},
                )
                writer.finish(draft, None, None)
            parts.append(IndexManifest.read(path))
        draft = replace(manifest, factory=plan.factory, reason=plan.reason, max_norm=0.0)
        finish_shards(old, draft, parts, folder, old.path, recall, threads, progress)
    return ShardsManifest.read(old.path)
