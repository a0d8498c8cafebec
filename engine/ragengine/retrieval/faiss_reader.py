"""Reading FAISS files: mapped into memory, with limits on what a forged one can make FAISS allocate."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragengine.errors import IndexFolderError
from ragengine.retrieval.faiss_api import faiss_reason, import_faiss
from ragengine.retrieval.faiss_header import table_bytes
from ragengine.storage.foreign_files import plain_size

# The limits belong to the process: two reads at once would change each other's.
_reading = threading.Lock()
if hasattr(
    os, "register_at_fork"
):  # a fork waits for a file that is read, or would find its limits and the lock
    os.register_at_fork(
        before=_reading.acquire, after_in_parent=_reading.release, after_in_child=_reading.release
    )
# A file may name more (empty) lists than it has bytes, and FAISS allocates some small tables that are in no
# file; this much does no harm.
_LEAST_LOOP_LIMIT = 1 << 16
_LEAST_BYTE_LIMIT = 1 << 20
_FLOAT = 4  # bytes
_KINDS = {
    *("IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexScalarQuantizer", "IndexPQ", "IndexPQFastScan"),
    *("IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ", "IndexIVFPQFastScan"),
    *("IndexHNSWFlat", "IndexHNSWSQ", "IndexHNSWPQ", "IndexNSGFlat"),
    *("IndexPreTransform", "IndexRefine", "IndexRefineFlat", "IndexIDMap", "IndexIDMap2"),
}
"""Kinds whose damaged files FAISS refuses (tests/robustness/mutated); a forged IndexRaBitQ crashes it."""
_SAME_VECTORS = ("index", "base_index", "refine_index", "storage")
"""Fields of an index that are indexes of the same vectors."""
_FLAT = b"IxFI"
_FLAT_HEADER = 64  # bytes, at most; what follows are the vectors


def read_faiss(path: Path, *, mapped: bool) -> Any:
    """Read a FAISS index; raises :class:`IndexFolderError` for what is not one.

    ``mapped`` leaves inverted lists, or the vectors of a flat index, in the file: they take no memory of
    their own, are read page by page as searches need them, and must not be changed.  Everything else (coarse
    quantizer, codebooks, graphs) is read into memory; with ``mapped=False`` all of it is.
    """
    faiss = import_faiss()
    try:
        size = plain_size(path)
        flags = _mapping_flags(faiss, path, size) if mapped else 0
        flags |= faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE  # L2 searches use it; it is larger than the file
        flags |= faiss.IO_FLAG_PQ_SKIP_SDC_TABLE  # so is this one, which only adding to a graph of PQ uses
        flags |= faiss.IO_FLAG_ONDISK_SAME_DIR  # a forged index may name any file; refused below
        with _limits(faiss, path, size):
            faiss_index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError, OSError, ValueError) as reason:
        raise IndexFolderError(
            f"{path} cannot be read by faiss {faiss.__version__}: {faiss_reason(reason)}; "
            "copy or build the index again."
        ) from reason
    _check_parts(faiss, faiss_index, path)
    _read_lists_in_place(faiss, faiss_index)
    return faiss_index


def _mapping_flags(faiss: Any, path: Path, size: int) -> int:
    """How FAISS maps this file.

    ``IO_FLAG_MMAP`` maps inverted lists alone.  ``IO_FLAG_MMAP_IFC`` maps anything, but crashes the process
    where a file ends inside a number; in a flat index there are no numbers after the header, only bytes.
    """
    if sys.platform == "win32":
        return 0  # FAISS has no inverted lists in files there
    with path.open("rb") as file:
        flat = file.read(len(_FLAT)) == _FLAT and size >= _FLAT_HEADER
    if flat and sys.platform != "darwin":  # where FAISS has not written IO_FLAG_MMAP_IFC
        return int(faiss.IO_FLAG_MMAP_IFC)
    return int(faiss.IO_FLAG_MMAP)


def _check_parts(faiss: Any, faiss_index: Any, path: Path) -> None:
    """Refuse an index that FAISS reads from a forged file and cannot, or must not, search."""
    kinds = (type(index).__name__ for index in _parts(faiss_index))
    if (kind := next((kind for kind in kinds if kind not in _KINDS), None)) is not None:
        raise IndexFolderError(
            f"{path} holds an {kind}, a kind of FAISS index that is not searched; use Flat, SQ, PQ or HNSW, "
            "or inverted lists (IVF) of Flat, SQ or PQ, with or without a transform or RFlat."
        )
    for index in _parts(faiss_index):
        name = type(index).__name__
        if not index.is_trained:
            raise IndexFolderError(f"{path} has an {name} without training; build the index again.")
        for inner, count in _inner_counts(index):
            if inner.ntotal != count:
                raise IndexFolderError(
                    f"{path} has an {name} of {count} parts over {inner.ntotal}; build the index again."
                )
        if isinstance(index, faiss.IndexFastScan):
            _check_blocks(faiss, index, path)
        if isinstance(index, faiss.IndexIVF):
            _check_lists(faiss, index, path)


def _check_blocks(faiss: Any, index: Any, path: Path) -> None:
    """Refuse codes that fill other blocks than the header says: FAISS searches as many as it says."""
    padded = -(-index.ntotal // index.bbs) * index.bbs
    if (index.ntotal2, index.codes.size()) != (padded, padded * index.M2 // 2):
        raise IndexFolderError(
            f"{path} has {index.codes.size()} bytes of codes in blocks for {index.ntotal2} vectors, but "
            f"{index.ntotal} vectors fill {padded * index.M2 // 2} in blocks for {padded}; "
            "build the index again."
        )


def _check_lists(faiss: Any, index: Any, path: Path) -> None:
    """Refuse inverted lists in another file, and lists laid out otherwise than their index searches them.

    FAISS would read either past its end.  Lists that FAISS mapped from this file are read-only; those in
    another file are not.
    """
    lists = faiss.downcast_InvertedLists(index.invlists)
    if isinstance(lists, faiss.OnDiskInvertedLists) and not lists.read_only:
        raise IndexFolderError(
            f"{path} keeps its inverted lists in another file, {lists.filename!a:.120}, which is not read; "
            "write it with ordinary inverted lists or build the index again."
        )
    if isinstance(index, faiss.IndexIVFFastScan):
        fits = isinstance(lists, faiss.BlockInvertedLists) and (lists.n_per_block, lists.block_size) == (
            index.bbs,
            index.bbs * index.M2 // 2,
        )
    else:
        fits = isinstance(lists, faiss.ArrayInvertedLists | faiss.OnDiskInvertedLists)
    if not fits:
        raise IndexFolderError(
            f"{path} has an {type(index).__name__} over {type(lists).__name__} of another layout; "
            "build the index again."
        )


def _parts(faiss_index: Any) -> Iterator[Any]:
    """An index and all those inside it, as their own classes."""
    index = import_faiss().downcast_index(faiss_index)
    yield index
    for name in (*_SAME_VECTORS, "quantizer"):
        if getattr(index, name, None) is not None:
            yield from _parts(getattr(index, name))


def _inner_counts(index: Any) -> Iterator[tuple[Any, int]]:
    """The indexes directly inside one, and how many vectors each must have."""
    inner = ((getattr(index, name, None), index.ntotal) for name in _SAME_VECTORS)
    lists = (getattr(index, "quantizer", None), getattr(index, "nlist", 0))
    yield from ((part, count) for part, count in (*inner, lists) if part is not None)


def _read_lists_in_place(faiss: Any, faiss_index: Any) -> None:
    """Switch off FAISS's prefetching of lists.

    It starts up to 32 threads a search to touch the lists, which costs several times the search itself once
    they are in memory.
    """
    inverted_lists = faiss.try_extract_index_ivf(faiss_index)
    if inverted_lists is not None:
        lists = faiss.downcast_InvertedLists(inverted_lists.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0


@contextlib.contextmanager
def _limits(faiss: Any, path: Path, size: int) -> Iterator[None]:
    """Let FAISS refuse arrays and counts larger than a file of ``size`` bytes with such a header can need."""
    with _reading:
        vector_bytes = faiss.get_deserialization_vector_byte_limit()
        loops = faiss.get_deserialization_loop_limit()
        least = max(size, _LEAST_BYTE_LIMIT)
        faiss.set_deserialization_vector_byte_limit(least + 1)  # what reaches the limit is refused
        faiss.set_deserialization_loop_limit(max(size, _LEAST_LOOP_LIMIT))
        try:
            # Of the table's numbers FAISS refuses as many as the limit holds: hence one number more.
            most = max(least, table_bytes(path, size) + _FLOAT)
            faiss.set_deserialization_vector_byte_limit(most + 1)
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(vector_bytes)
            faiss.set_deserialization_loop_limit(loops)
