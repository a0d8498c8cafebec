"""Filling inverted lists through a file of codes: in memory they take their own size and no more.

A list that grows vector by vector doubles again and again, and all lists together then take up to three
times their size.  Here the code of each vector and the number of its list are written to a file first, in
the order of the rows.  That is the work, and a run that is killed has done it up to the last checkpoint.
Then each list is given the size that it will have, and the codes are sorted into the lists.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import HalfArray
from ragengine.errors import IndexFolderError
from ragengine.indexing.plan import ROWS_AT_ONCE
from ragengine.indexing.vector_sources import VectorFile
from ragengine.retrieval.faiss_api import extract_ivf, import_faiss
from ragengine.runtime.progress import Report
from ragengine.storage.npy import open_vectors


def write_codes(
    faiss_index: Any,
    vectors: HalfArray,
    path: Path,
    done: int,
    report: Report,
    saved: Callable[[VectorFile], object],
) -> None:
    """Write the codes of the rows of ``vectors`` [N, E] that the index does not hold into the file ``path``.

    A row of the file is the number of the list (little-endian) and the code.  ``done`` rows are there
    already; ``saved`` is called after each block.
    """
    first, count = faiss_index.ntotal, len(vectors)
    with VectorFile(path, (count - first, faiss_index.sa_code_size()), done=done, dtype=np.uint8) as file:
        for start in range(first + done, count, ROWS_AT_ONCE):
            file.append(faiss_index.sa_encode(np.asarray(vectors[start : start + ROWS_AT_ONCE], np.float32)))
            report(first + file.done, count)
            saved(file)


def fill_lists(faiss_index: Any, path: Path) -> None:
    """Add the vectors whose codes are in a file of :func:`write_codes`.

    The index is the same, byte for byte, as after FAISS's own ``add``.
    """
    faiss = import_faiss()
    codes = open_vectors(path, np.uint8, IndexFolderError)
    index, first = extract_ivf(faiss_index), faiss_index.ntotal
    lists = faiss.downcast_InvertedLists(index.invlists)
    sizes = np.bincount(_list_numbers(codes, index.coarse_code_size()), minlength=index.nlist)
    for number, more in enumerate(sizes.tolist()):
        size = lists.list_size(number)
        lists.resize(number, size + more)  # to shrink a list leaves it its memory
        lists.resize(number, size)
    for start in range(0, len(codes), ROWS_AT_ONCE):
        block = np.ascontiguousarray(codes[start : start + ROWS_AT_ONCE])
        rows = np.arange(first + start, first + start + len(block))
        index.add_sa_codes(block, rows)
    faiss_index.ntotal = index.ntotal


def _list_numbers(codes: NDArray[np.uint8], width: int) -> NDArray[np.int32]:
    """The numbers of the lists [N] in the first ``width`` bytes of ``codes`` [N, width + code]."""
    numbers = np.zeros(len(codes), np.int32)
    for byte in range(width):
        numbers |= codes[:, byte].astype(np.int32) << (8 * byte)
    return numbers
