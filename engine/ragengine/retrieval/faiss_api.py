"""How the engine calls FAISS: imported on first use, parameters for each call, typed errors."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.errors import DependencyError, IndexFolderError, InputError
from ragengine.installation import pip_install
from ragengine.messages import one_line
from ragengine.runtime.lifecycle import lost_openmp_threads


def search_faiss(
    faiss_index: Any, questions: FloatArray, width: int, params: Any = None
) -> tuple[FloatArray, RowArray]:
    """FAISS's scores and rows of the ``width`` best for each question, best first, both [Q, width].

    ``params`` are those of :func:`search_parameters`; None takes the index's own settings.  Raises
    :class:`IndexFolderError` for what FAISS notices in a forged file only when it searches.
    """
    try:
        scores, rows = faiss_index.search(questions, width, params=params)
    except (RuntimeError, MemoryError) as reason:
        raise IndexFolderError(
            f"The FAISS index cannot be searched: {faiss_reason(reason)}; "
            "ask less at once if memory was short, or build the index again."
        ) from reason
    return scores, rows


def check_whole(name: str, value: object) -> None:
    """Raise :class:`InputError` unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1.")


def search_parameters(faiss_index: Any, nprobe: int | None, selector: Any = None, share: float = 1.0) -> Any:
    """The parameters of one FAISS search; the index itself stays as it is.

    Args:
        faiss_index: an index for which :func:`takes_selector`, if there is a ``selector``.
        nprobe: the inverted lists to search; the index's own number where None.
        selector: a ``faiss.IDSelector`` of the rows that may be found, or None for all.
        share: the share of all rows that are selected.  Where the index's own settings are used, so many
            times more lists or nodes are visited that about as many rows as without a selector are compared.

    Returns:
        None where the index's own settings are used as they are.
    """
    if nprobe is None and selector is None:
        return None
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(index.index, nprobe, selector, share)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(index.base_index, nprobe, selector, share)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        lists = nprobe or min(index.nlist, math.ceil(index.nprobe / share))
        return faiss.SearchParametersIVF(sel=selector, nprobe=lists, max_codes=index.max_codes)
    if isinstance(index, faiss.IndexHNSW):
        nodes = min(index.ntotal, math.ceil(index.hnsw.efSearch / share))
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(nodes, index.hnsw.efSearch))
    return faiss.SearchParameters(sel=selector)


def takes_selector(faiss_index: Any) -> bool:
    """Whether FAISS can search among selected rows of this kind of index; not in a PQ without lists."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        return takes_selector(index.index)
    if isinstance(index, faiss.IndexRefine):
        return takes_selector(index.base_index)
    kinds = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexIVF, faiss.IndexHNSW)
    return isinstance(index, kinds) and not isinstance(index, faiss.IndexIVFAdditiveQuantizer)


def import_faiss() -> Any:
    """The faiss module, or a :class:`DependencyError` that says how to get it."""
    try:
        import faiss
    except ImportError as reason:
        raise DependencyError(
            f"faiss is not installed; run {pip_install('cpu')}, or on a CUDA machine {pip_install('gpu')} "
            f"({reason})."
        ) from reason
    except (RuntimeError, OSError) as reason:  # a GPU build that does not find the CUDA libraries it needs
        raise DependencyError(
            f"faiss cannot be loaded: {reason}; ragengine doctor says which CUDA libraries there are."
        ) from reason
    return faiss


@contextlib.contextmanager
def faiss_threads(threads: int | None) -> Iterator[None]:
    """Let faiss use ``threads`` threads (None: as it is set) for this thread's calls inside the block.

    After a fork it is one thread, since OpenMP's others are gone.
    """
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    if lost_openmp_threads():
        threads = 1
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def faiss_reason(error: BaseException) -> str:
    """What a FAISS exception says, without the C++ signature and source path that it begins with."""
    _, separator, rest = str(error).partition(".cpp:")
    return one_line(rest.partition(": ")[2].removeprefix("Error: ") if separator else error)


def extract_ivf(faiss_index: Any) -> Any:
    """The inverted-file index inside ``faiss_index``, behind transforms and refinement, or None."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexRefine):
        return extract_ivf(index.base_index)
    return faiss.try_extract_index_ivf(index)


def has_plain_lists(faiss_index: Any) -> bool:
    """Whether an index is an IVF, alone or behind transforms, whose lists in memory are rows of codes."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return (
        isinstance(index, faiss.IndexIVFFlat | faiss.IndexIVFPQ | faiss.IndexIVFScalarQuantizer)
        and not isinstance(index, faiss.IndexIVFPQR)  # it keeps codes of its own beside the lists
        and isinstance(faiss.downcast_InvertedLists(index.invlists), faiss.ArrayInvertedLists)
    )


def is_graph(faiss_index: Any) -> bool:
    """Whether FAISS searches by walking a graph (HNSW, NSG), with or without a transform before."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        return is_graph(index.index)
    return isinstance(index, faiss.IndexHNSW | faiss.IndexNSG)
