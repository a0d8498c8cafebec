"""The arrays of a file that ``flax.serialization.to_bytes`` wrote: MessagePack with a type for arrays."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from ragengine.errors import ExportError
from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import open_plain, why
from ragengine_export.conversion.matching import Arrays, Shape

_ARRAY: Final = 1  # the extension type
_CHUNKED: Final = "__msgpack_chunked_array__"  # an array of more than 2^30 bytes, in flat pieces
_FLOATS: Final = ("float16", "float32", "float64")


def array_shapes(path: Path) -> dict[str, Shape]:
    """The shapes of all arrays of a file by their paths.

    Raises:
        ExportError: it cannot be read, or contains something other than arrays of floats.
    """
    return {name: array.shape for name, array in _arrays(path).items()}


def read_arrays(path: Path, names: Collection[str]) -> Arrays:
    """Read the arrays ``names`` of a file; otherwise as :func:`array_shapes`."""
    arrays = _arrays(path)
    return {name: arrays[name].astype(np.float32) for name in names}


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays, as views of what was read: none is larger than its bytes in the file (bfloat16: twice)."""
    try:
        with open_plain(path) as file:
            return dict(_flat("", msgpack.unpackb(file.read(), ext_hook=_array)))
    except Exception as reason:  # msgpack has types of its own beside ValueError and KeyError
        told = one_line(why(reason)) or type(reason).__name__
        raise ExportError(
            f"{path} cannot be read as weights of Flax: {told}; save or download it again."
        ) from reason


def _flat(path: str, tree: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of nested maps; MessagePack's own limit on nesting bounds the recursion."""
    if isinstance(tree, dict) and tree.get(_CHUNKED):
        chunks, sizes = tree["chunks"], tree["shape"]
        flat = np.concatenate([chunks[str(number)] for number in range(len(chunks))])
        yield path, flat.reshape([sizes[str(axis)] for axis in range(len(sizes))])
    elif isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _flat(f"{path}/{name}", inner)
    elif isinstance(tree, np.ndarray):
        yield path, tree
    else:
        raise ValueError(f"{short_repr(path)} is {type(tree).__name__}, not an array")


def _array(code: int, data: bytes) -> NDArray[Any]:
    """An array from its shape, type and bytes (``_ndarray_from_bytes`` of flax)."""
    if code != _ARRAY:
        raise ValueError(f"extension type {code} is not an array")
    shape, kind, numbers = msgpack.unpackb(data, raw=True)
    kind = kind.decode()
    if kind not in (*_FLOATS, "bfloat16"):
        raise ValueError(f"an array has the type {short_repr(kind)}, not a float of 16, 32 or 64 bits")
    if kind == "bfloat16":  # the upper half of a float32
        wide = np.frombuffer(numbers, "<u2").astype("<u4") << 16
        array = wide.view("<f4")
    else:
        array = np.frombuffer(numbers, np.dtype(kind).newbyteorder("<"))
    if math.prod(shape) != array.size or min(shape, default=0) < 0:
        raise ValueError(f"an array has {array.size} numbers and the shape {short_repr(shape)}")
    return array.reshape(shape)
