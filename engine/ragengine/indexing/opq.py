"""Training the rotation of OPQ (Ge et al. 2013, "Optimized Product Quantization")."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray
from ragengine.indexing.plan import ROTATION_VECTORS
from ragengine.retrieval.faiss_api import import_faiss

# This start leaves little to gain: few rounds instead of faiss's 50, on fewer vectors.
_ROUNDS = 4
_FIRST_ROUND = 8


def train_opq(transform: Any, sample: FloatArray) -> None:
    """Train a ``faiss.OPQMatrix`` on ``sample`` [N, E].

    faiss starts with a random rotation and needs tens of rounds of k-means.  This starts with the paper's
    solution for Gaussian data (its section 3.2), which is usually better than the result of those rounds
    (docs/guides/indexes.md), and improves it by a few rounds.
    """
    faiss = import_faiss()
    transform.niter = _ROUNDS
    transform.niter_pq_0 = _FIRST_ROUND
    transform.max_train_points = ROTATION_VECTORS
    if transform.d_out <= min(transform.d_in, len(sample)):
        rotation = _balanced_rotation(sample, transform.d_out, transform.M)
        faiss.copy_array_to_vector(rotation.ravel(), transform.A)
    transform.train(sample)


def _balanced_rotation(sample: FloatArray, rotated: int, parts: int) -> NDArray[np.float32]:
    """The principal directions, [rotated, E], shared out so that the parts' variances have equal products."""
    faiss = import_faiss()
    dimension = sample.shape[1]
    principal = faiss.PCAMatrix(dimension, dimension)
    principal.train(sample)
    directions = faiss.vector_to_array(principal.PCAMat).reshape(dimension, dimension)
    variances = np.maximum(faiss.vector_to_array(principal.eigenvalues), np.finfo(np.float32).tiny)
    dealt: list[list[int]] = [[] for _ in range(parts)]
    products = np.zeros(parts)  # as logarithms
    for number, variance in enumerate(variances[:rotated].tolist()):
        room = np.array([len(part) < rotated // parts for part in dealt])
        part = int(np.argmin(np.where(room, products, np.inf)))
        dealt[part].append(number)
        products[part] += np.log(variance)
    return np.ascontiguousarray(directions[np.concatenate(dealt)], np.float32)
