"""Parts of a FAISS index: some of its rows, in an index that shares what it learned."""

from typing import Any

import numpy as np

from ragengine.errors import InputError
from ragengine.retrieval.faiss_api import check_whole, extract_ivf, import_faiss
from ragengine.retrieval.sharding.quantizer import flat_codes

MOST_SHARDS = 4096


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
        flat_codes(index).merge_from(flat_codes(part))
    index.ntotal = (lists if lists is not None else flat_codes(index)).ntotal


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
        codes, all_codes = flat_codes(part), flat_codes(source)
        size = all_codes.code_size
        found = faiss.rev_swig_ptr(all_codes.codes.data(), all_codes.ntotal * size)
        codes.add_sa_codes(np.array(found[first * size : (first + count) * size]).reshape(count, size))
    part.ntotal = count
    return part
