"""Fuzz the reader of .npy files."""

import io

import atheris
import numpy as np

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.errors import InputError
    from ragengine.storage.npy import open_vectors

from pathlib import Path

from tests.fuzz.fuzzing import fuzz


def read_array_file(folder: Path, data: bytes) -> None:
    """What is read has the size that it claims."""
    path = folder / "file.npy"
    path.unlink(missing_ok=True)  # a mapped file is not cut
    path.write_bytes(data)
    for dtype in (np.float32, np.float16):
        vectors = open_vectors(path, dtype, InputError)
        assert vectors.nbytes < len(data)
        float(vectors.sum())


def _saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


if __name__ == "__main__":
    arrays = [np.ones((3, 4), np.float32), np.ones((3, 4), np.float16, order="F"), np.ones(0, np.int64)]
    fuzz(read_array_file, [*map(_saved, arrays), _saved(arrays[0], (2, 0)), _saved(arrays[0], (3, 0))])
