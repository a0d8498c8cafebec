"""The arrays of an HDF5 file that a stranger may have made: plain numbers, stored whole in the file itself.

HDF5 can do more: link to other files, keep its numbers in others, compute them from others, decompress them
with a library that it loads, and describe an array of any size in a few bytes.  A file that does is refused
before a number of it is read.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from ragengine.errors import ExportError
from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import open_plain, why

Shape: TypeAlias = tuple[int, ...]

DEEPEST: Final = 64
"""How many groups inside one another are entered; a group may contain itself."""
MOST_OBJECTS: Final = 1 << 17
"""How many groups and arrays of a file are looked at; the largest models have some thousands."""


def array_shapes(path: Path) -> dict[str, Shape]:
    """The shapes of all arrays of an HDF5 file by their paths, after everything in it has been checked.

    Args:
        path: the file; a link must not lead out of its folder.

    Raises:
        ExportError: it cannot be read, or contains something other than plain arrays of floats.
    """
    with _opened(path) as arrays:
        return {name: array.shape for name, array in arrays.items()}


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Read the arrays ``names`` of an HDF5 file; otherwise as :func:`array_shapes`."""
    with _opened(path) as arrays:
        return {name: arrays[name][()].astype(np.float32, copy=False) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open_plain(path, within=path.parent) as file, h5py.File(file, "r") as opened:
            arrays = dict(_arrays(opened))
            _check_extents(arrays, path.stat().st_size)
            yield arrays
    except Exception as reason:  # OSError, RuntimeError, KeyError, ValueError: h5py has no list of them
        raise ExportError(
            f"{path} cannot be read as HDF5: {one_line(why(reason))}; save or download it again."
        ) from reason


def _arrays(opened: Any) -> Iterator[tuple[str, Any]]:
    """Every array below the root of an open file, without following any link that leads elsewhere."""
    waiting, seen = [("", 0, opened)], 0
    while waiting:
        path, depth, group = waiting.pop()
        seen += len(group)
        if seen > MOST_OBJECTS or depth > DEEPEST:
            raise ValueError(f"more than {MOST_OBJECTS} objects, or {DEEPEST} groups inside one another")
        for name in group:
            inner = f"{path}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{short_repr(inner)} is a link to another place")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((inner, depth + 1, item))
            else:
                _check_plain(inner, item)
                yield inner, item


def _check_plain(path: str, item: Any) -> None:
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise ValueError(f"{short_repr(path)} is neither a group nor an array")
    if item.dtype.kind != "f" or item.dtype.itemsize not in (2, 4, 8):
        raise ValueError(f"{short_repr(path)} has the type {item.dtype}, not a float of 16, 32 or 64 bits")
    if item.is_virtual or item.external or item.chunks is not None:
        raise ValueError(f"the numbers of {short_repr(path)} are not stored in one piece in the file")


def _check_extents(arrays: dict[str, Any], file_bytes: int) -> None:
    """Check that the file holds the bytes of every array, each for itself."""
    total = 0
    for path, array in arrays.items():
        needed, offset = array.size * array.dtype.itemsize, array.id.get_offset()
        total += needed
        if needed and (offset is None or array.id.get_storage_size() != needed):
            raise ValueError(f"{short_repr(path)} has no {needed} bytes in the file")
    if total > file_bytes:
        raise ValueError(f"it describes {total} bytes of numbers and has {file_bytes}")
