"""Parts of a FAISS index: some of its rows, in an index that shares what it learned."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.errors import InputError
from ragengine.retrieval.faiss_api import check_whole, extract_ivf, import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.structure import can_share

MOST_SHARDS = 4096


def empty_copy(path: Path) -> Any:
    """The index at ``path`` without its vectors: centroids, rotation and codebooks alone.

    Raises:
        InputError: it is of a kind whose parts do not find together what it finds.
    """
    faiss = import_faiss()
    index = read_faiss(path, mapped=True)
    check_can_divide(index, str(path))
    inverted_lists = extract_ivf(index)
    if inverted_lists is not None:
        lists = faiss.ArrayInvertedLists(inverted_lists.nlist, inverted_lists.code_size)
        inverted_lists.replace_invlists(lists, True)
        lists.this.disown()
        inverted_lists.nprobe = 1  # a setting, not something learned
        inverted_lists.ntotal = 0
    else:
        index = read_faiss(path, mapped=False)
        index.reset()
    index.ntotal = 0
    return index


def check_can_divide(index: Any, name: str) -> None:
    """Raise :class:`InputError` where parts of a FAISS index do not find together what it finds."""
    if not can_share(index):
        kind = type(import_faiss().downcast_index(index)).__name__
        raise InputError(
            f"The FAISS index {name} is {kind}, whose vectors cannot be divided among shards (a graph, "
            "refinement or fast scan); build one of Flat, or IVF with PQ, SQ or Flat."
        )


def check_shards(shards: int) -> None:
    """Raise :class:`InputError` unless an index can be in so many shards."""
    check_whole("shards", shards)
    if shards > MOST_SHARDS:
        raise InputError(f"shards is {shards}; it must be at most {MOST_SHARDS}.")


def shard_bounds(number: int, shards: int, count: int) -> tuple[int, int]:
    """The first of ``count`` rows that shard ``number`` of ``shards`` has, and the row behind its last."""
    return number * count // shards, (number + 1) * count // shards


def append(index: Any, part: Any, first: int) -> None:
    """Move the vectors of ``part``, rows 0, 1, ..., to ``index`` as rows ``first`` on: the next ones."""
    lists = extract_ivf(index)
    if lists is not None:
        lists.merge_from(extract_ivf(part), first)
    else:
        _codes(index).merge_from(_codes(part))
    index.ntotal = (lists if lists is not None else _codes(index)).ntotal


def part_of(source: Any, empty: Any, first: int, count: int) -> Any:
    """A copy of ``empty`` (:func:`empty_copy`) with ``count`` rows of ``source`` from ``first`` on.

    Codes are copied, not computed again.  The rows are numbered 0, 1, ...
    """
    faiss = import_faiss()
    part = faiss.clone_index(empty)
    lists, all_lists = extract_ivf(part), extract_ivf(source)
    if lists is not None:
        all_lists.copy_subset_to(lists, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, first, first + count)
        for number in range(lists.nlist):
            size = lists.invlists.list_size(number)
            if size:
                ids = faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)  # a view: faiss's own memory
                ids -= first
    else:
        codes, all_codes = _codes(part), _codes(source)
        size = all_codes.code_size
        found = faiss.rev_swig_ptr(all_codes.codes.data(), all_codes.ntotal * size)
        codes.add_sa_codes(np.array(found[first * size : (first + count) * size]).reshape(count, size))
    part.ntotal = count
    return part


def quantizer_hash(empty: Any) -> str:
    """The sha256 of what FAISS learned, from an index of :func:`empty_copy`: of all its parts the same."""
    faiss = import_faiss()
    digest = hashlib.sha256()

    def write(data: Any) -> None:
        digest.update(bytes(data))

    faiss.write_index(empty, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def _codes(index: Any) -> Any:
    """The part of an index without lists that holds its codes, behind transforms."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    return _codes(index.index) if isinstance(index, faiss.IndexPreTransform) else index
