"""The wire format, read more strictly than protobuf's own readers do."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto

from ragengine.bundle import protobuf
from ragengine.bundle.onnx_schema import SCHEMA
from ragengine.bundle.protobuf import WireError, decode


@given(st.binary(max_size=200))
@example(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")  # a graph of 2^64 - 1 bytes
@example(b"\x3a" * 100)
def test_random_bytes_raise_nothing_but_the_typed_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(SCHEMA, "Model", data)


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_of_64_bits(number: int) -> None:
    data = b"\x08" + varint(number)
    signed = number - (1 << 64) if number >= 1 << 63 else number
    assert decode(SCHEMA, "Model", data)["ir_version"] == [signed]
    assert ModelProto.FromString(data).ir_version == signed
    with pytest.raises(WireError):
        decode(SCHEMA, "Model", data[:-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08" + b"\xff" * 10 + b"\x00", "does not end within 64 bits"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "does not end within 64 bits"),
        (b"\x00\x01", "field 0 at byte 0 is not part of the ONNX format"),
        (b"\xf8\x07\x01", "field 127 at byte 0 is not part of the ONNX format"),
        (b"\x0b", "wire type 3; a number was expected"),
        (b"\x0d\0\0\0\0", "wire type 5; a number was expected"),
        (b"\x08\x01\x08\x01", "a second ir_version"),
        (b"\x3a\x05\x00", "has 5 bytes, 1 are left"),
        (b"\x3a\x00\x3a\x00", "a second graph"),
    ],
)
def test_what_protobuf_lets_pass_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        decode(SCHEMA, "Model", data)


def test_recursion_and_the_number_of_fields_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = b""
    for _ in range(1000):  # a graph in an attribute of a node of a graph ...
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + varint(len(graph)) + graph
    with pytest.raises(WireError, match="more than 64 messages deep"):
        decode(SCHEMA, "Graph", graph)
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 1000)
    for many in (b"\x42\x00" * 1001, b"\x0a" + varint(1001) + b"\x01" * 1001):
        with pytest.raises(WireError, match="more than 1000 fields"):
            decode(SCHEMA, "Model" if many[0] == 0x42 else "Tensor", many)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
