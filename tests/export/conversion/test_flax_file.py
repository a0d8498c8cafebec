"""Flax's files of strangers: MessagePack that is not nested maps of whole arrays of floats is refused."""

import re
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from ragengine.errors import ExportError
from ragengine_export.conversion.flax_file import array_shapes, read_arrays


def array(shape: Any, kind: str = "float32", numbers: bytes = b"", code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, kind, numbers)))


def write(folder: Path, content: Any) -> Path:
    (folder / "w.msgpack").write_bytes(msgpack.packb(content))
    return folder / "w.msgpack"


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_floats_of_any_size_are_read(kind: str, tmp_path: Path) -> None:
    numbers = np.array([[1.5, -2.0, 0.25]], np.float32)
    data = (
        (numbers.view("<u4") >> 16).astype("<u2") if kind == "bfloat16" else numbers.astype(kind)
    ).tobytes()
    path = write(tmp_path, {"a": {"kernel": array((1, 3), kind, data), "b/c": array((3,), kind, data)}})
    assert array_shapes(path) == {"/a/kernel": (1, 3), "/a/b/c": (3,)}
    np.testing.assert_array_equal(read_arrays(path, ["/a/kernel"])["/a/kernel"], numbers)


def test_arrays_in_chunks_are_joined(tmp_path: Path) -> None:
    """As ``flax.serialization._chunk`` cuts an array of more than 2^30 bytes."""
    numbers = np.arange(12, dtype=np.float32)
    chunks = {
        str(n): array((5,), numbers=part.tobytes()) for n, part in enumerate([numbers[:5], numbers[5:10]])
    }
    chunks["2"] = array((2,), numbers=numbers[10:].tobytes())
    cut = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 4}, "chunks": chunks}
    path = write(tmp_path, {"w": cut})
    np.testing.assert_array_equal(read_arrays(path, ["/w"])["/w"], numbers.reshape(3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": array((10**9, 10**9))}, "an array has 0 numbers and the shape"),
        ({"w": array((-1, -1), numbers=bytes(4))}, "an array has 1 numbers and the shape"),
        ({"w": array((1,), "int32", bytes(4))}, "an array has the type 'int32'"),
        ({"w": array((1,), "O", bytes(8))}, "an array has the type 'O'"),
        ({"w": array((1,), numbers=bytes(4), code=2)}, "extension type 2 is not an array"),
        ({"w": msgpack.ExtType(1, b"\xc1")}, "cannot be read as weights of Flax"),
        ({"w": [1, 2]}, "'/w' is list, not an array"),
        ({"w": "text"}, "'/w' is str, not an array"),
        ({"w": {"__msgpack_chunked_array__": True}}, "cannot be read as weights of Flax"),
        ([], "'' is list, not an array"),
    ],
    ids=str,
)
def test_anything_else_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=re.escape(message)):
        array_shapes(write(tmp_path, content))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x81", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000, b"\xc6\xff\xff\xff\xff", bytes(9)],
    ids=["empty", "cut", "a map of 2^32", "deep", "2^32 bytes", "more than one"],
)
def test_malformed_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.msgpack").write_bytes(data)
    with pytest.raises(ExportError, match="cannot be read as weights of Flax"):
        array_shapes(tmp_path / "w.msgpack")


def test_damaged_files_are_refused_or_read(written: Path, tmp_path: Path) -> None:
    data, random = (written / "flax_bert" / "flax_model.msgpack").read_bytes(), np.random.default_rng(6)
    path, refused, read = tmp_path / "w.msgpack", 0, 0
    for number in range(200):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(data))] if number % 4 == 0 else damaged)
        try:
            read_arrays(path, array_shapes(path))
        except ExportError as reason:
            refused += str(reason).isprintable()
        else:
            read += 1
    assert refused + read == 200
    assert refused >= 50
