"""What a caller brings for an index, checked before anything is written."""

from pathlib import Path

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.retrieval.recall import QUERIES
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.npy import open_vectors


def read_queries(path: str | Path | None, dimension: int) -> FloatArray | None:
    """Question vectors of a ``.npy`` file, float32 [Q, E]; the first 1000 where there are more."""
    if path is None:
        return None
    queries = open_vectors(checked_path(path, InputError), np.float32, InputError)
    if not len(queries) or queries.shape[1] != dimension:
        raise InputError(
            f"{path} holds vectors {list(queries.shape)}; one or more of {dimension} were expected."
        )
    questions = np.array(queries[:QUERIES])
    if not np.isfinite(questions).all():
        row = int(np.flatnonzero(~np.isfinite(questions).all(axis=1))[0])
        raise InputError(f"{path}: question vector {row} has NaN or infinite components; all must be finite.")
    return questions


def opened_bundle(bundle: str | Path | Bundle) -> Bundle:
    """A bundle that may be given by its path."""
    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)


def check_recall(recall: float) -> None:
    """Raise :class:`InputError` unless ``recall`` is one that can be reached."""
    if not 0 < recall <= 1:
        raise InputError(f"recall is {recall}; it must be above 0 and at most 1.")


def check_seed(seed: int) -> None:
    """Raise :class:`InputError` unless ``seed`` can seed a generator of random numbers."""
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0.")
