"""HDF5 files of strangers: what is not a plain array in the file itself is refused before it is read."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ragengine.errors import ExportError
from ragengine_export.conversion import hdf5
from ragengine_export.conversion.hdf5 import array_shapes, read_arrays

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_floats_of_any_size_and_order_are_read(dtype: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("a/b/kernel:0", data=NUMBERS.astype(dtype))
        file.create_dataset("scalar", data=np.array(2.5, dtype))
        file.create_dataset("empty", data=np.zeros((0, 3), dtype))
    shapes = array_shapes(tmp_path / "w.h5")
    assert shapes == {"/a/b/kernel:0": (2, 3), "/scalar": (), "/empty": (0, 3)}
    read = read_arrays(tmp_path / "w.h5", ["/a/b/kernel:0"])
    assert read["/a/b/kernel:0"].dtype == np.dtype("=f4")
    np.testing.assert_array_equal(read["/a/b/kernel:0"], NUMBERS)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2, 3))
    file.create_virtual_dataset("w", layout)


def _deep(file: h5py.File) -> None:
    group = file
    for _ in range(hdf5.DEEPEST + 2):
        group = group.create_group("g")


def _itself(file: h5py.File) -> None:
    file.create_group("g")["again"] = file["/"]


def _many(file: h5py.File) -> None:
    for number in range(40):
        file.create_group(str(number))


HOSTILE: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "external link": (lambda f: f.__setitem__("w", h5py.ExternalLink("secret.h5", "/x")), "'/w' is a link"),
    "soft link": (lambda f: f.__setitem__("w", h5py.SoftLink("/x")), "'/w' is a link"),
    "external storage": (
        lambda f: f.create_dataset("w", (2, 3), "f4", external=[("/etc/passwd", 0, 24)]),
        "the numbers of '/w' are not stored in one piece",
    ),
    "virtual": (_virtual, "the numbers of '/w' are not stored in one piece"),
    "compressed": (
        lambda f: f.create_dataset("w", data=np.zeros((1000, 1000), "f4"), compression="gzip"),
        "the numbers of '/w' are not stored in one piece",
    ),
    "never written": (
        lambda f: f.create_dataset("w", (10**6, 10**6), "f4"),
        "'/w' has no 4000000000000 bytes",
    ),
    "texts": (lambda f: f.create_dataset("w", data=["a", "b"]), "'/w' has the type object"),
    "references": (
        lambda f: f.create_dataset("w", (2,), dtype=h5py.ref_dtype),
        "'/w' has the type object",
    ),
    "integers": (lambda f: f.create_dataset("w", data=np.ones(3, "i8")), "'/w' has the type int64"),
    "records": (lambda f: f.create_dataset("w", data=np.ones(3, "f4,f4")), "not a float"),
    "no shape": (
        lambda f: f.create_dataset("w", data=h5py.Empty("f4")),
        "'/w' is neither a group nor an array",
    ),
    "a type": (lambda f: f.__setitem__("w", np.dtype("f4")), "'/w' is neither a group nor an array"),
    "too deep": (_deep, "groups inside one another"),
    "itself": (_itself, "groups inside one another"),
    "escapes": (lambda f: f.__setitem__("\x1b[2Jw", h5py.SoftLink("/x")), r"'/\x1b[2Jw' is a link"),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_anything_else_is_refused(
    make: Callable[[h5py.File], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file.create_dataset("x", data=NUMBERS)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        make(file)
    with pytest.raises(ExportError, match=re.escape(message)):
        array_shapes(tmp_path / "w.h5")
    with pytest.raises(ExportError, match=re.escape(message)):
        read_arrays(tmp_path / "w.h5", ["/w"])


def test_objects_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MOST_OBJECTS", 39)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        _many(file)
    with pytest.raises(ExportError, match="more than 39 objects"):
        array_shapes(tmp_path / "w.h5")


def test_arrays_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A small file must not become many arrays."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a"] = np.ones((64, 64), "f4")
        for number in range(100):
            file[f"b{number}"] = file["a"]
    with pytest.raises(ExportError, match="bytes of numbers and has"):
        array_shapes(tmp_path / "w.h5")


def test_only_a_plain_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"w\.h5 cannot be read as HDF5: No such file"):
        array_shapes(tmp_path / "w.h5")
    os.mkfifo(tmp_path / "w.h5")
    with pytest.raises(ExportError, match="it is not a plain file"):
        array_shapes(tmp_path / "w.h5")


def test_damaged_files_are_refused_or_read(written: Path, tmp_path: Path) -> None:
    """Changed bytes, and a file that ends early: a typed sentence, or as many numbers as there are bytes."""
    data, random = (written / "bert" / "tf_model.h5").read_bytes(), np.random.default_rng(5)
    path, refused, read = tmp_path / "w.h5", 0, 0
    for number in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, len(data) if number % 2 else 6000, 1 + number % 5):
            damaged[place] = random.choice([0, 255, damaged[place] ^ (1 << random.integers(8))])
        path.write_bytes(damaged[: random.integers(len(data))] if number % 7 == 0 else damaged)
        try:
            shapes = array_shapes(path)
            assert sum(array.nbytes for array in read_arrays(path, shapes).values()) <= 2 * len(data)
        except ExportError as reason:
            refused += str(reason).isprintable()
        else:
            read += 1
    assert refused + read == 150
    assert refused > 20
