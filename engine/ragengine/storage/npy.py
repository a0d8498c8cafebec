"""``.npy`` files, mapped into memory with a header parser of its own.

numpy evaluates the header as a Python literal.  That executes nothing, but a forged header raises a dozen
kinds of exceptions or exhausts the parser's stack.  Plain numbers of one type, which is all that is read
here, need one form of it.
"""

import math
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ragengine.arrays import FloatArray
from ragengine.errors import RagEngineError
from ragengine.storage.foreign_files import open_plain, shown_path, why

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_BYTES: Final = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}
"""Bytes of the header's length, by the version of the format; 3 differs from 2 in that names may be UTF-8."""
_LONGEST_HEADER: Final = 4096
_MOST_AXES: Final = 8
_ITEM = re.compile(
    r"\s*(?:'descr'\s*:\s*'(?P<descr>[^']{0,20})'"
    r"|'fortran_order'\s*:\s*(?P<order>True|False)"
    r"|'shape'\s*:\s*\((?P<shape>[0-9,\s]{0,200})\))\s*,?"
)
_NUMBERS = re.compile(r"[<>|=]?(?:f[248]|[iu][1248])|[<|]V2")
BFLOAT16: Final = np.dtype("V2")
"""numpy has no bfloat16: where ml_dtypes' numbers were saved, the file says that they are any two bytes."""


def map_npy(path: Path) -> NDArray[Any]:
    """Map an array of plain numbers, read-only; those of bfloat16 have the type :data:`BFLOAT16`.

    Raises:
        ValueError: the file holds something else, or another size than its header says.
        OSError: the file cannot be read.
    """
    with open_plain(path) as file:
        dtype, order, shape = _read_header(file)
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        wanted = start + math.prod(shape) * dtype.itemsize
        if size != wanted:
            raise ValueError(f"it has {size} bytes, but {wanted} by its header")
        if size == start:
            return np.empty(shape, dtype, order)
        return np.memmap(file, dtype, "r", start, shape, order)


def read_rows(vectors: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Read rows of an array [N, E] of :func:`map_npy` from its file, and not from the mapped memory.

    To touch mapped memory behind the end of a file that was cut ends the process.

    Raises:
        ValueError: the file has been cut.
        OSError: it cannot be read.
    """
    if not isinstance(vectors, np.memmap):  # an array without numbers is not mapped
        return vectors[start:stop]
    stop = max(start, min(stop, len(vectors)))
    columns = vectors.T if np.isfortran(vectors) else vectors[None]
    rows = np.empty((len(columns), stop - start, *columns.shape[2:]), vectors.dtype)
    with open_plain(Path(str(vectors.filename))) as file:
        for column, part in enumerate(rows):
            file.seek(vectors.offset + column * columns.strides[0] + start * columns.strides[1])
            if file.readinto(part.data) < part.nbytes:
                raise ValueError("it was cut while it was read")
    return rows.T if np.isfortran(vectors) else rows[0]


def _read_header(file: BinaryIO) -> tuple[np.dtype[Any], Any, tuple[int, ...]]:
    """Read the element type, the order ``"C"`` or ``"F"``, and the shape; ``file`` is then at the numbers."""
    start = file.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC) or start[len(_MAGIC) :] not in _LENGTH_BYTES:
        raise ValueError("it does not begin like a file of version 1.0, 2.0 or 3.0")
    width = _LENGTH_BYTES[start[len(_MAGIC) :]]
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, more than the {_LONGEST_HEADER} that are read")
    header = file.read(length)
    if len(header) < length or not header.isascii():
        raise ValueError("its header is cut off or is not ASCII")
    fields = _fields(header.decode("ascii"))
    if not _NUMBERS.fullmatch(fields["descr"]):
        raise ValueError(f"its elements are {fields['descr']!a}, not plain numbers; objects are never read")
    sizes = [size for size in re.split(r"[,\s]+", fields["shape"]) if size]
    if len(sizes) > _MOST_AXES or any(len(size) > 15 for size in sizes):
        raise ValueError(f"its shape is ({fields['shape']:.80})")
    order = "F" if fields["order"] == "True" else "C"
    return np.dtype(fields["descr"]), order, tuple(map(int, sizes))


def _fields(header: str) -> dict[str, str]:
    """The three entries of a header, as text."""
    text, fields, at = header.strip(), dict[str, str](), 1
    while (item := _ITEM.match(text, at)) is not None:
        found = {name: value for name, value in item.groupdict().items() if value is not None}
        if found.keys() & fields.keys():
            break
        fields |= found
        at = item.end()
    if not text.startswith("{") or text[at:].strip() != "}" or len(fields) != 3:
        raise ValueError(f"its header is {header.strip()!a:.120}")
    return fields


def open_vectors(path: Path, dtype: DTypeLike, error: type[RagEngineError]) -> NDArray[Any]:
    """Map vectors of one type, read-only; pickled objects are refused.

    Args:
        path: a ``.npy`` file.
        dtype: the type of its elements.
        error: the class of the error that is raised.

    Returns:
        An array [N, E].

    Raises:
        RagEngineError: as ``error``: the file cannot be read, or holds another type or shape.
    """
    vectors = _mapped(path, error)
    if vectors.dtype != dtype or vectors.ndim != 2:
        raise _wrong_type(path, vectors, str(np.dtype(dtype)), error)
    return vectors


def open_given_vectors(path: Path, error: type[RagEngineError]) -> NDArray[Any]:
    """Map vectors that a user brings, read-only: float32, float16 or bfloat16 [N, E], for :func:`as_float32`.

    Raises:
        RagEngineError: as ``error``: the file cannot be read, or holds another type or shape.
    """
    vectors = _mapped(path, error)
    if vectors.dtype not in (np.float32, np.float16, BFLOAT16) or vectors.ndim != 2:
        raise _wrong_type(path, vectors, "float32, float16 or bfloat16", error)
    return vectors


def as_float32(vectors: NDArray[Any]) -> FloatArray:
    """Vectors of :func:`open_given_vectors` as float32 [N, E]; each of their numbers is one of float32."""
    if vectors.dtype != BFLOAT16:
        return np.asarray(vectors, np.float32)
    halves = np.ascontiguousarray(vectors).view("<u2").astype(np.uint32)  # the upper half of float32
    numbers: FloatArray = (halves << 16).view(np.float32)
    return numbers


def _mapped(path: Path, error: type[RagEngineError]) -> NDArray[Any]:
    try:
        return map_npy(path)
    except (OSError, ValueError) as reason:
        raise error(
            f"{shown_path(path)} cannot be read as a .npy file: {why(reason)}; save it again."
        ) from reason


def _wrong_type(
    path: Path, vectors: NDArray[Any], expected: str, error: type[RagEngineError]
) -> RagEngineError:
    return error(
        f"{path} holds {vectors.dtype} {list(vectors.shape)}; {expected} [passages, dimension] was expected; "
        "convert it with numpy's astype and save it again."
    )
