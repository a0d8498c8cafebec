"""What a caller brings for an index, checked before anything is written."""

from pathlib import Path

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.messages import one_line, short_repr
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.recall import QUERIES
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.npy import as_float32, open_given_vectors
from ragengine.storage.schema import LARGEST_COUNT


def read_queries(path: str | Path | None, dimension: int) -> FloatArray | None:
    """Question vectors of a ``.npy`` file as float32 [Q, E]; the first 1000 where there are more."""
    if path is None:
        return None
    queries = open_given_vectors(checked_path(path, InputError), InputError)
    if not len(queries) or queries.shape[1] != dimension:
        raise InputError(
            f"{path} holds vectors {list(queries.shape)}; one or more of {dimension} were expected."
        )
    questions = as_float32(np.array(queries[:QUERIES]))
    if not np.isfinite(questions).all():
        row = int(np.flatnonzero(~np.isfinite(questions).all(axis=1))[0])
        raise InputError(f"{path}: question vector {row} has NaN or infinite components; all must be finite.")
    return questions


def opened_bundle(bundle: str | Path | Bundle) -> Bundle:
    """A bundle that may be given by its path."""
    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)


def checked_recall(recall: float) -> float:
    """``recall``, or :class:`InputError` where it is none that can be reached."""
    number = isinstance(recall, int | float | np.floating) and not isinstance(recall, bool)
    if not number or not 0 < recall <= 1:
        raise InputError(f"recall is {short_repr(recall)}; it must be above 0 and at most 1.")
    return float(recall)


def checked_seed(seed: int) -> int:
    """``seed``, or :class:`InputError` where a manifest cannot hold it."""
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed <= LARGEST_COUNT:
        raise InputError(f"seed is {short_repr(seed)}; it must be a whole number from 0 to {LARGEST_COUNT}.")
    return int(seed)


def check_threads(threads: int | None) -> None:
    """Raise :class:`InputError` unless ``threads`` is a number of threads, or None for all cores."""
    if threads is not None:
        check_whole("threads", threads)


def shown_name(path: Path) -> str:
    """The name of a file as manifests and messages show it: in one line, whatever it holds."""
    return one_line(path.name)
