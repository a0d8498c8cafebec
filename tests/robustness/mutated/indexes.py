"""Small index folders of every kind of FAISS file, and checks of their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragengine.corpus.passage import Passage
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FAISS_FILE, PASSAGES_FILE, VECTORS_FILE
from ragengine.retrieval.passage_store import write_passages
from ragengine.storage.folders import MANIFEST, write_manifest
from tests.support.paths import GOLDEN

N, E = 60, 16
"""The number of passages and the dimension of vectors."""
SERVED = {
    "flat": "Flat",
    "sq": "SQ8",
    "pq": "PQ4x4",
    "ivf_flat": "IVF4,Flat",
    "ivf_sq": "IVF4,SQ8",
    "ivf_pq": "IVF4,PQ4x4",
    "opq_ivf_pq": "OPQ4_8,IVF4,PQ4x4",
    "pca_ivf_flat": "PCA8,IVF4,Flat",
    "refine": "IVF4,PQ4x4,RFlat",
    "ivf_hnsw": "IVF4_HNSW4,Flat",
    "pq_fast_scan": "PQ4x4fs",
    "fast_scan": "IVF4,PQ4x4fs",
    "hnsw": "HNSW4",
    "hnsw_sq": "HNSW4_SQ8",
}
"""FAISS factories that ragengine chooses, keeps, or builds on request."""


def vectors(seed: int = 0, count: int = N) -> NDArray[np.float32]:
    """Vectors [count, E] that fp16 represents exactly."""
    drawn = np.random.default_rng(seed).standard_normal((count, E))
    return drawn.astype(np.float16).astype(np.float32)


def faiss_file(path: Path, factory: str) -> Path:
    """Write a FAISS file of :func:`vectors`."""
    faiss.omp_set_num_threads(1)
    made = faiss.index_factory(E, factory, faiss.METRIC_INNER_PRODUCT)
    made.train(vectors(seed=9, count=300))
    made.add(vectors())
    faiss.write_index(made, str(path))
    return path


def write_index(folder: Path, factory: str) -> Path:
    """Write an index folder as ``ragengine index build`` does, of any factory and without a bundle."""
    folder.mkdir()
    faiss_file(folder / FAISS_FILE, factory)
    np.save(folder / VECTORS_FILE, vectors().astype(np.float16))
    owners = ({"owner": "ab"[row % 2]} for row in range(N))
    passages = (Passage(f"id{n}", "title", f"text {n}", metadata=owner) for n, owner in enumerate(owners))
    write_passages(folder / PASSAGES_FILE, passages)
    content: dict[str, Any] = json.loads((GOLDEN / "index_v1" / MANIFEST).read_text("utf-8"))
    search = {"rerank_width": 8} | ({"nprobe": 2} if "IVF" in factory else {})
    norm = float(np.linalg.norm(vectors(), axis=1).max())
    content |= {"dimension": E, "count": N, "factory": factory, "search": search, "max_norm": norm}
    write_manifest(folder, content | {"recall": None, "tuning": None})
    return folder


def check_answers(folder: Path) -> None:
    """Open an index and search it; raises :class:`AssertionError` for an impossible result."""
    with PassageIndex.open(folder, verify="size") as index:
        index.warm_up()
        for questions in (vectors(1, 1), vectors(2, 20)):
            for settings in ({}, {"rerank_width": 40}):
                found = index.search(questions, 5, **settings)
                check_found(found.rows, found.scores, questions, index)
        index.search_documents(vectors(3, 1), 3)
        index.verify()


def check_found(
    rows: NDArray[np.int64], scores: NDArray[np.float32], questions: NDArray[np.float32], index: PassageIndex
) -> None:
    """Check that rows are distinct and best first, with the scores of the stored vectors."""
    stored = np.load(index.path / VECTORS_FILE, mmap_mode="r").astype(np.float64)
    for q, question in enumerate(questions):
        there = rows[q][rows[q] >= 0]
        assert len(set(there.tolist())) == len(there), f"a passage was found twice: {rows[q]}"
        assert (there < len(stored)).all(), f"rows that are not there: {rows[q]}"
        found = scores[q][: len(there)]
        assert np.isfinite(found).all(), f"scores are not finite: {scores[q]}"
        assert (np.diff(found) <= 0).all(), f"not best first: {scores[q]}"
        np.testing.assert_allclose(found, stored[there] @ question, rtol=1e-4, atol=1e-4)
