"""Messages between an engine and the server of a shard: a JSON head, then arrays as raw bytes.

    4 bytes   b"RGSH"
    4 bytes   the version of the format, uint32
    4 bytes   the length H of the head, uint32
    H bytes   the head: a JSON object in UTF-8
    the arrays one after the other, in the order of the head's "arrays": [[name, type, shape], ...]

All numbers are little-endian.  A type is ``float32`` or ``int64``.  Nothing follows the last array.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ragengine.messages import one_line, short_repr
from ragengine.storage.strict_json import parse_json

WIRE_VERSION: Final = 1
MEDIA_TYPE: Final = "application/vnd.ragengine.shard"
MAX_MESSAGE_BYTES: Final = 64 << 20
"""The longest message that is read."""
_MAGIC: Final = b"RGSH"
_PREFIX: Final = struct.Struct("<4sII")
_TYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}


@dataclass(frozen=True, eq=False)
class Message:
    """What one side tells the other: JSON values by name, and arrays by name."""

    head: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def encode(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a message.

    Args:
        head: JSON values by name, without the name ``arrays``.
        arrays: float32 or int64 arrays of any shape by name.
    """
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**head, "arrays": listed}, ensure_ascii=False, allow_nan=False).encode("utf-8")
    parts = [np.ascontiguousarray(array, _TYPES[array.dtype.name]).tobytes() for array in arrays.values()]
    return b"".join([_PREFIX.pack(_MAGIC, WIRE_VERSION, len(text)), text, *parts])


def decode(data: bytes, expected: Mapping[str, tuple[str, int]]) -> Message:
    """Read a message that somebody else wrote.

    Args:
        data: its bytes.
        expected: the arrays that it must have: name, type and number of axes.

    Returns:
        The message; its arrays are read-only views of ``data``.

    Raises:
        ValueError: it is none, or of another version, or its arrays are others; the text ends a sentence.
    """
    if len(data) < _PREFIX.size or data[:4] != _MAGIC:
        raise ValueError("it does not begin as a message of ragengine's shards does")
    _, version, length = _PREFIX.unpack_from(data)
    if version != WIRE_VERSION:
        raise ValueError(f"it has version {version} of the wire format, and this side reads {WIRE_VERSION}")
    end = _PREFIX.size + length
    if end > len(data):
        raise ValueError(f"its head has {length} bytes, more than the {len(data)} of the whole message")
    try:
        head = parse_json(data[_PREFIX.size : end].decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise ValueError(f"its head is not JSON: {one_line(reason)}") from reason
    listed = head.pop("arrays", None) if isinstance(head, dict) else None
    if not isinstance(listed, list):
        raise ValueError("its head lists no arrays")
    arrays, place = {}, end
    for name, type, shape in map(_entry, listed):
        if expected.get(name) != (type, len(shape)) or name in arrays:
            raise ValueError(f"it has the array {short_repr(name)} of {len(shape)} axes of {type}")
        size = math.prod(shape) * _TYPES[type].itemsize
        if size > len(data) - place:
            raise ValueError(f"its array {name} {list(shape)} is longer than the message")
        flat = np.frombuffer(data, _TYPES[type], math.prod(shape), place)
        arrays[name] = flat.astype(_TYPES[type].newbyteorder("="), copy=False).reshape(shape)
        place += size
    if missing := expected.keys() - arrays.keys():
        raise ValueError(f"it has no array {', '.join(sorted(missing))}")
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes follow its last array")
    return Message(head, arrays)


def _entry(listed: Any) -> tuple[str, str, tuple[int, ...]]:
    """Name, type and shape of an array as the head lists it."""
    if isinstance(listed, list) and len(listed) == 3:
        name, type, shape = listed
        sizes = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape)
        if isinstance(name, str) and isinstance(type, str) and type in _TYPES and sizes:
            return name, type, tuple(shape)
    raise ValueError(f"it lists the array {short_repr(listed)}, not a name, a type and a shape")
