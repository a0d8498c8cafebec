"""What a FAISS file makes FAISS allocate beyond what the file holds, read from its headers."""

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from ragengine.retrieval.faiss_api import import_faiss

_TRANSFORMED: Final = b"IxPT"
_WRAPPERS: Final = (b"IxRF", b"IxMp", b"IxM2")
"""Refined and id-mapped indexes: after the header comes the index inside."""
_FAST_SCAN_LISTS: Final = b"IwPf"
_MOST_WRAPPERS: Final = 16
_MOST_TRANSFORMS: Final = 64

_TABLE_ENTRIES: Final = 16  # a 4-bit sub-quantiser has 2^4 centroids
_FLOAT: Final = 4


def table_bytes(path: Path, size: int) -> int:
    """At most how many bytes FAISS takes for a table that a file of ``size`` bytes does not hold; 0 for most.

    Inverted lists of fast-scan PQ have a float for each list, sub-quantiser and centroid: 64 · nlist · M
    bytes.  M follows the coarse quantiser in the file, and is at most the dimension d.  The coarse
    quantiser itself takes 4 · nlist · d bytes, so a header whose table is more than 16 times the file is
    forged, and no reason to allow more.

    Every other kind that is read allocates what the file holds.
    """
    with path.open("rb") as file:
        try:
            nlist, dimension = _fast_scan_lists(file)
        except (struct.error, RuntimeError):  # cut off: FAISS, which reads it next, says so
            return 0
    table = _TABLE_ENTRIES * _FLOAT * nlist * dimension
    return table if table <= _TABLE_ENTRIES * size else 0


def _fast_scan_lists(file: BinaryIO) -> tuple[int, int]:
    """``nlist`` and ``d`` of fast-scan lists, behind transforms and refinement; (0, 0) for other indexes."""
    for _ in range(_MOST_WRAPPERS):
        kind = file.read(4)
        if kind not in (_TRANSFORMED, *_WRAPPERS, _FAST_SCAN_LISTS):
            break
        dimension = _header(file)
        if kind == _FAST_SCAN_LISTS:
            return _numbers(file, "<Q")[0], dimension
        if kind == _TRANSFORMED:
            _skip_transforms(file)
    return 0, 0


def _header(file: BinaryIO) -> int:
    """Read the header that every index has: its dimension."""
    dimension, *_, metric = _numbers(file, "<iqqq?i")
    if metric > 1:  # neither inner product nor L2: a parameter follows
        file.read(_FLOAT)
    return int(dimension)


def _skip_transforms(file: BinaryIO) -> None:
    faiss = import_faiss()
    reader = faiss.PyCallbackIOReader(file.read)
    for _ in range(min(_numbers(file, "<i")[0], _MOST_TRANSFORMS)):
        faiss.read_VectorTransform(reader)


def _numbers(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
