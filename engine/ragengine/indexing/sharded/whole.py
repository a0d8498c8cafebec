"""The search settings of an index in shards, tuned over all of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.errors import IndexFolderError
from ragengine.indexing import partition, resources
from ragengine.indexing.plan import memory_needed
from ragengine.indexing.tuning import exact_manifest, recall_test, tuned_manifest
from ragengine.indexing.vector_sources import VectorFile
from ragengine.retrieval.faiss_api import faiss_threads, import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.manifest import FAISS_FILE, QUERIES_FILE, VECTORS_FILE, IndexManifest
from ragengine.runtime.progress import Progress, phase_report
from ragengine.storage.joined_rows import joined_rows
from ragengine.storage.npy import open_vectors


def tuned_over(
    draft: IndexManifest,
    empty: Any,
    shards: Sequence[Path],
    questions: FloatArray | None,
    recall: float,
    threads: int | None,
    progress: Progress | None,
) -> IndexManifest:
    """``draft`` of an index in shards with search settings that reach ``recall``, as one index is tuned.

    Args:
        draft: what is known of the whole; its ``count`` and ``max_norm`` are.
        empty: the FAISS index that all shards share, without vectors; it is filled.
        shards: the folders of those that have passages, in order.
        questions: float32 [Q, E] to measure the recall with; stored vectors where None.
        recall: the recall to reach.
        threads: threads to use.
        progress: called with the phases exact and tune.

    Raises:
        IndexFolderError: there is not enough memory for the FAISS index of the whole.
    """
    if isinstance(empty, import_faiss().IndexFlat):
        return exact_manifest(draft)
    resources.check_memory(memory_needed(empty, draft.count, draft.dimension), draft.factory)
    for path in shards:
        partition.append(empty, read_faiss(path / FAISS_FILE, mapped=False), empty.ntotal)
    vectors: HalfArray = joined_rows(
        [open_vectors(path / VECTORS_FILE, np.float16, IndexFolderError) for path in shards]
    )
    with faiss_threads(threads):
        test = recall_test(vectors, questions, draft.seed, phase_report(progress, "exact"))
        manifest, timings = tuned_manifest(
            draft, empty, vectors, test, recall, phase_report(progress, "tune")
        )
    return dataclasses.replace(manifest, timings=timings)


def write_questions(folder: Path, questions: FloatArray, name: str = QUERIES_FILE) -> None:
    """Keep the questions that the recall was measured with, as an index does."""
    path = folder / name
    path.unlink(missing_ok=True)  # it may be a link: the file of another index
    with VectorFile(path, questions.shape, dtype=np.float32) as file:
        file.append(questions)
        file.bring_to_disk()
