"""Reading ``.npy`` headers without evaluating them: what numpy writes is read, all else is refused."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from ragengine.errors import InputError
from ragengine.storage.npy import as_float32, map_npy, open_given_vectors, open_vectors, read_rows

NUMBERS = st.sampled_from(["f2", "f4", "f8", ">f4", "i8", "u1", "<i4"]).map(np.dtype)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("npy") / "a.npy"


@given(array=st.tuples(NUMBERS, SHAPES).flatmap(lambda drawn: arrays(*drawn)), fortran=st.booleans())
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(
    path: Path, array: NDArray[Any], fortran: bool, version: tuple[int, int]
) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asfortranarray(array) if fortran else array, version)
    path.write_bytes(file.getvalue())
    found = map_npy(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert not found.size or not found.flags.writeable


def npy(header: str, data: bytes = bytes(8)) -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode("latin-1") + data


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
        "{'shape':(2,),'descr':'<f4','fortran_order':False}\n",
        "  { 'fortran_order': False , 'shape': ( 2, ), 'descr': '<f4' }  ",
    ],
)
def test_other_writers_order_and_space_it_otherwise(path: Path, header: str) -> None:
    path.write_bytes(npy(header, np.array([1, 2], np.float32).tobytes()))
    assert map_npy(path).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", r"elements are '\|O', not plain numbers"),
        ("{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}", "elements are '<f3'"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", r"has \d+ bytes, but \d+ by its header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", r"has \d+ bytes, but \d+ by its header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000,)}", "its shape is"),
        ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False}", "its header is"),
        ("{'descr': '<f4', 'fortran_order': False}", "its header is"),
        ("__import__('os').abort()", "its header is"),
        ("(" * 5000, "its header has 5000 bytes, more than the 4096"),
        ("\xff", "is not ASCII"),
    ],
)
def test_all_else_is_refused_with_the_reason(path: Path, header: str, message: str) -> None:
    path.write_bytes(npy(header))
    with pytest.raises(ValueError, match=message):
        map_npy(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\1\1\0\0", b"\x93NUMPY\4\0\0\0", b"x" * 99]
)
def test_what_does_not_begin_as_one_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not begin like a file"):
        map_npy(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ValueError, match="not a plain file"):
        map_npy(tmp_path / "pipe.npy")


@given(
    array=arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5))),
    fortran=st.booleans(),
    start=st.integers(0, 9),
    more=st.integers(0, 9),
)
def test_rows_are_read_as_slices_are(
    path: Path, array: NDArray[Any], fortran: bool, start: int, more: int
) -> None:
    np.save(path, np.asfortranarray(array) if fortran else array)
    start = min(start, len(array))
    found = read_rows(map_npy(path), start, start + more)
    np.testing.assert_array_equal(found, array[start : start + more])


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_a_file_that_is_cut_are_an_error_and_no_signal(path: Path, order: Any) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3, order="C")
    np.save(path, np.asarray(array, order=order))
    mapped = map_npy(path)
    os.truncate(path, path.stat().st_size - 1)
    if order == "C":
        np.testing.assert_array_equal(read_rows(mapped, 0, 3), array[:3])
    with pytest.raises(ValueError, match="it was cut while it was read"):
        read_rows(mapped, 0, 4)


def test_an_array_without_numbers_has_rows_too(path: Path) -> None:
    np.save(path, np.zeros((0, 3), np.float32))
    assert read_rows(map_npy(path), 0, 5).shape == (0, 3)


@pytest.mark.parametrize(("digits", "read"), [(15, True), (16, False)])
def test_the_longest_size_that_is_read(path: Path, digits: int, read: bool) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1' * digits},)}}".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="by its header" if read else "its shape is"):
        map_npy(path)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3), np.float16), np.zeros(6, np.float32), np.zeros((1, 2, 3), "f4")]
)
def test_vectors_have_one_type_and_two_axes(path: Path, array: NDArray[Any]) -> None:
    np.save(path, array)
    with pytest.raises(InputError, match=r"holds float.*; float32 \[passages, dimension\] was expected"):
        open_vectors(path, np.float32, InputError)
    np.save(path, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(open_vectors(path, np.float32, InputError), np.ones((2, 3)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_vectors_of_a_user_are_read_as_float32(path: Path, name: str, order: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
    numbers = [[0.0, -1.5, 3.0e4], [float("inf"), float("nan"), 1e-6], [2.0, 0.1, -0.0]]
    vectors = np.array(numbers, dtype, order=order)
    np.save(path, vectors)
    mapped = open_given_vectors(path, InputError)
    found = as_float32(read_rows(mapped, 0, 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors.astype(np.float32))
    np.testing.assert_array_equal(as_float32(mapped[1:]), vectors[1:].astype(np.float32))


@pytest.mark.parametrize("dtype", ["float64", "int8", "uint16", "V4"])
def test_vectors_of_other_types_are_refused(path: Path, dtype: str) -> None:
    np.save(path, np.zeros((2, 3), dtype))
    with pytest.raises(InputError, match=r"float32, float16 or bfloat16|not plain numbers"):
        open_given_vectors(path, InputError)
