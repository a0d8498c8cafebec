"""Fuzz the readers of TensorFlow's and Flax's weights."""

import io

import atheris
import h5py
import msgpack
import numpy as np

with atheris.instrument_imports(include=["ragengine", "ragengine_export"]):
    from ragengine_export.conversion import flax_file, hdf5

from pathlib import Path

from tests.fuzz.fuzzing import fuzz


def read_weights(folder: Path, data: bytes) -> None:
    """What is read has the size that it claims."""
    path = folder / "weights"
    path.write_bytes(data)
    reader = hdf5 if data.startswith(b"\x89HDF") else flax_file
    shapes = reader.array_shapes(path)
    for name, values in reader.read_arrays(path, shapes).items():
        assert values.shape == shapes[name]
        assert values.nbytes <= 2 * len(data)
        float(values.sum())


def _hdf5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened["a/b/kernel:0"] = np.ones((3, 4), np.float32)
        opened["a/c"] = np.ones(2, np.float16)
        opened.attrs["layer_names"] = ["a"]
    return file.getvalue()


def _flax() -> bytes:
    numbers = msgpack.packb(((2, 3), "float32", bytes(24)))
    return msgpack.packb({"a": {"kernel": msgpack.ExtType(1, numbers)}})


if __name__ == "__main__":
    fuzz(read_weights, [_hdf5(), _flax()])
