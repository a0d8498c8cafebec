"""Weights on disk: one external-data file a folder, every distinct tensor in it once."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import nn

from ragengine.errors import ExportError

FILE = "weights.bin"
ALIGNMENT = 64  # bytes; a cache line, and enough for every vector unit

State: TypeAlias = Mapping[str, NDArray[np.float32]]


class WeightWriter:
    """Appends tensors to ``weights.bin`` and remembers their content.

    A tensor that was written before (a tied head, an embedding that two graphs read) is not written
    again.  A tensor whose every value is exact in float16 is stored as float16: checkpoints trained or
    published in half precision take half the space, and the numbers stay the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / FILE).open("wb")
        self._written: dict[str, tuple[int, ir.DataType]] = {}

    def __enter__(self) -> "WeightWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, values: NDArray[np.float32]) -> ir.ExternalTensor:
        """Store ``values`` and return the tensor that refers to them."""
        half = values.astype(np.float16)
        stored = half if np.array_equal(half.astype(np.float32), values) else values
        data = np.ascontiguousarray(stored).tobytes()
        key = f"{stored.dtype}{hashlib.sha256(data).hexdigest()}"
        if key not in self._written:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._written[key] = (self._file.tell(), ir.DataType.from_numpy(stored.dtype))
            self._file.write(data)
            self._file.flush()
        offset, dtype = self._written[key]
        return ir.ExternalTensor(
            FILE,
            offset,
            len(data),
            dtype,
            shape=ir.Shape(values.shape),
            name=name,
            base_dir=str(self._folder),
        )


def bind(module: nn.Module, state: State, writer: WeightWriter, what: str) -> None:
    """Give every parameter of ``module`` its tensor; name all that are missing or misshapen at once."""
    parameters = dict(module.named_parameters())
    faults = [f"{name} is missing" for name in parameters if name not in state]
    for name, parameter in parameters.items():
        expected = tuple(int(size) for size in parameter.shape or ())
        if name in state and state[name].shape != expected:
            faults.append(f"{name} has shape {list(state[name].shape)} instead of {list(expected)}")
    if faults:
        raise ExportError(f"The checkpoint's {what} does not fit its config: {'; '.join(faults)}.")
    for name in sorted(parameters):
        tensor = writer.add(name, state[name])
        parameters[name].const_value = tensor
        parameters[name].type = ir.TensorType(tensor.dtype)


def fingerprint(state: State) -> str:
    """A sha256 of names, shapes and values: the identity of a network, whatever file holds it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{state[name].shape}".encode())
        digest.update(np.ascontiguousarray(state[name], dtype="<f4").tobytes())
    return digest.hexdigest()
