"""Protocol buffers' wire format, read strictly by a schema: what is not in the schema is refused.

Protobuf's own readers skip unknown fields and let the last copy of a field win.  This one must know what a
library will find in a file that somebody else made, so it leaves nothing to interpretation: an unknown field,
a field of another wire type, a second copy of a single field and a number that does not end are all refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

MAX_DEPTH: Final = 64
"""The deepest nesting of messages that is read; protobuf's own readers stop at 100."""
MAX_FIELDS: Final = 2_000_000
"""The most fields of one file: seconds of reading, a hundred times those of the largest exported graph."""

INT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {INT: "a number", FIXED64: "64 bits", BYTES: "bytes", FIXED32: "32 bits"}
_VARINT_BYTES = 10


class WireError(ValueError):
    """Bytes are not a message of the schema; the message says where."""


@dataclass(frozen=True)
class Field:
    """A field of a message: its name, its wire type, and how it is read.

    message   the message type that the bytes hold
    many      whether it may occur more than once; numbers may then be packed, too
    ignored   whether it is skipped and left out of the values
    """

    name: str
    wire: int
    message: str | None = None
    many: bool = False
    ignored: bool = False


Schema: TypeAlias = Mapping[str, Mapping[int, Field]]
Message: TypeAlias = dict[str, list[Any]]
"""The values of a message by field name, in their order: int, bytes or :data:`Message`; ``"bytes"`` is the
length of the message in bytes."""


def decode(schema: Schema, message: str, data: bytes) -> Message:
    """Read ``data`` as the message type ``message`` of ``schema``.

    Raises:
        WireError: the bytes are not such a message; nothing else is raised, whatever they are.
    """
    return _Reader(schema, data).message(message, 0, len(data), MAX_DEPTH)


class _Reader:
    """Positions are offsets in ``data``; ``end`` is the offset of the first byte that is not read."""

    def __init__(self, schema: Schema, data: bytes) -> None:
        self._schema = schema
        self._data = data
        self._fields_left = MAX_FIELDS

    def message(self, name: str, at: int, end: int, depth: int) -> Message:
        if depth == 0:
            raise WireError(f"{name} at byte {at} is more than {MAX_DEPTH} messages deep")
        known = self._schema[name]
        found: Message = {"bytes": [end - at]}
        while at < end:
            self._count()
            start = at
            tag, at = self._varint(at, end)
            field = known.get(tag >> 3)
            if field is None:
                raise WireError(f"field {tag >> 3} at byte {start} is not part of the ONNX format of {name}")
            if field.ignored:
                _, at = self._extent(field, tag & 7, at, end)
                continue
            values = found.setdefault(field.name, [])
            if values and not field.many:
                raise WireError(f"{name} at byte {start} has a second {field.name}")
            at = self._read(field, tag & 7, at, end, depth, values)
        return found

    def _read(self, field: Field, wire: int, at: int, end: int, depth: int, values: list[Any]) -> int:
        """Append the value or packed values of the field at ``at``; return the position after it."""
        at, stop = self._extent(field, wire, at, end)
        if field.message is not None:
            values.append(self.message(field.message, at, stop, depth - 1))
        elif field.wire == BYTES:
            values.append(self._data[at:stop])
        while field.wire == INT and at < stop:
            self._count()
            value, at = self._varint(at, stop)
            values.append(value - (1 << 64) if value >= 1 << 63 else value)  # int64
        return stop

    def _extent(self, field: Field, wire: int, at: int, end: int) -> tuple[int, int]:
        """Where the content of a field begins and ends; its tag ends at ``at``."""
        if wire == BYTES and (field.wire == BYTES or field.many):  # text, a message, or packed numbers
            size, at = self._varint(at, end)
        elif wire != field.wire:
            expected = _WIRE_TYPES[field.wire]
            raise WireError(f"{field.name} at byte {at} has the wire type {wire}; {expected} was expected")
        elif wire == INT:
            size = self._varint(at, end)[1] - at
        else:
            size = 8 if wire == FIXED64 else 4
        if at + size > end:
            raise WireError(f"{field.name} at byte {at} has {size} bytes, {end - at} are left")
        return at, at + size

    def _count(self) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise WireError(f"it has more than {MAX_FIELDS} fields")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """An unsigned number of at most 64 bits, seven to a byte, and the position after it."""
        if at < end and self._data[at] < 0x80:  # nearly all of them
            return self._data[at], at + 1
        value = shift = 0
        for place in range(at, min(at + _VARINT_BYTES, end)):
            byte = self._data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value, place + 1
            shift += 7
        raise WireError(f"the number at byte {at} does not end within 64 bits or within its message")
