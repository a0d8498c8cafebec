"""Vectors, and indexes of every kind of FAISS that find them."""

from functools import cache

import faiss
import numpy as np

from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, random_vectors

N, WIDE, NLIST = 1500, 16, 12
LISTED = [f"IVF{NLIST},Flat", f"IVF{NLIST},PQ8x4", f"OPQ8_8,IVF{NLIST},PQ8x4", f"IVF{NLIST},SQ8"]
LISTED += [f"IVF{NLIST},PQ8x4fs", f"IVF{NLIST},PQ8x4,RFlat", f"PCA8,IVF{NLIST},Flat"]
# Codes so long that no two passages share one: of tied codes FAISS may keep other ones when it keeps more.
UNTIED = [LISTED[0], f"OPQ8_8,IVF{NLIST},PQ8x6", f"IVF{NLIST},SQ8"]
OTHERS = ["Flat", "PQ8x4", "SQ8", "OPQ8_8,PQ8x4"]
GRAPHS = ["HNSW16", "HNSW16_SQ8"]


@cache
def vectors() -> Array:
    return random_vectors(N, WIDE).astype(np.float16)


@cache
def index(factory: str) -> VectorIndex:
    """An index of :func:`vectors`; one for all tests, as one serves all questions."""
    wide = vectors().astype(np.float32)
    faiss_index = faiss.index_factory(WIDE, factory, faiss.METRIC_INNER_PRODUCT)
    if "OPQ" in factory:
        faiss.downcast_VectorTransform(faiss_index.chain.at(0)).niter = 3  # the tests need no good rotation
    faiss_index.train(wide)
    faiss_index.add(wide)
    return VectorIndex(faiss_index, vectors(), float(np.linalg.norm(wide, axis=1).max()), {})


def questions(count: int = 20, seed: int = 1) -> Array:
    return random_vectors(count, WIDE, seed)


def flat(vectors: Array) -> VectorIndex:
    """Exact search of given vectors, as they are stored."""
    half = vectors.astype(np.float16)
    index = faiss.IndexFlatIP(half.shape[1])
    index.add(half.astype(np.float32))
    max_norm = float(np.linalg.norm(half.astype(np.float64), axis=1).max())
    return VectorIndex(index, half, max_norm, {})
