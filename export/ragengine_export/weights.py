"""Weights on disk: external data beside the graphs of a folder, every distinct tensor in it once."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import nn

from ragengine.errors import ExportError
from ragengine_export.choices import PARTS, Part, Precision
from ragengine_export.graphs.layers import Embedding, LayerNorm, Linear
from ragengine_export.graphs.values import FLOAT, FLOAT16
from ragengine_export.graphs.weight_formats import FloatWeight, Int4Weight, Int8Weight, StoredWeight
from ragengine_export.quantize import int4_blocks, int8_rows

FILE = "weights.bin"
PASSAGES_FILE = "passages.bin"  # what only the passage encoder has, beside the question encoder's
ALIGNMENT = 64  # bytes; a cache line, and enough for every vector unit

INT4_BLOCK_SIZE = 32  # numbers that share a scale (docs/notes/operators.md)

QUANTISED: Final = ("int8", "int4")
State: TypeAlias = Mapping[str, NDArray[np.float32]]


class WeightWriter:
    """Appends tensors to a file of ``folder`` and remembers their content.

    A tensor that was written before (a tied head, an embedding that two graphs read) is not written
    again; nor is one that ``beside`` has written, the writer of another file of the same folder.
    """

    def __init__(self, folder: Path, file: str = FILE, *, beside: "WeightWriter | None" = None) -> None:
        self._folder = folder
        self._name = file
        self._file = (folder / file).open("wb")
        self._written: dict[str, tuple[str, int]] = {} if beside is None else dict(beside._written)

    def __enter__(self) -> "WeightWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, values: NDArray[Any]) -> ir.ExternalTensor:
        """Store ``values`` and return the tensor that refers to them."""
        data = np.ascontiguousarray(values).tobytes()
        key = f"{values.dtype}{hashlib.sha256(data).hexdigest()}"
        if key not in self._written:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._written[key] = self._name, self._file.tell()
            self._file.write(data)
            self._file.flush()
        file, offset = self._written[key]
        return ir.ExternalTensor(
            file,
            offset,
            len(data),
            ir.DataType.from_numpy(values.dtype),
            shape=ir.Shape(values.shape),
            name=name,
            base_dir=str(self._folder),
        )


def bind(
    module: nn.Module,
    state: State,
    writer: WeightWriter,
    what: str,
    precision: Precision,
    *,
    by_row: bool = False,
    parts: Collection[Part] = PARTS,
) -> None:
    """Store every parameter of ``module`` in ``precision`` and give the module what refers to it.

    ``by_row`` says that a product with an int8 matrix has a scale for each row of activations; matrices of
    other ``parts`` stay in floats.
    All parameters that are missing or misshapen are named at once.
    """
    parameters = dict(module.named_parameters())
    faults = [f"{name} is missing" for name in parameters if name not in state]
    for name, parameter in parameters.items():
        expected = tuple(int(size) for size in parameter.shape or ())
        if name in state and state[name].shape != expected:
            faults.append(f"{name} has shape {list(state[name].shape)} instead of {list(expected)}")
    if faults:
        raise ExportError(f"The checkpoint's {what} does not fit its config: {'; '.join(faults)}.")
    quantised: set[str] = set()
    if precision in QUANTISED:
        quantised = _quantised(module, state, writer, precision, by_row, parts)
    if computes_in(precision) == FLOAT16:
        _compute_in_half(module)
    for name in sorted(parameters.keys() - quantised):
        tensor = writer.add(name, _floats(name, state[name], precision))
        parameters[name].const_value = tensor
        parameters[name].type = ir.TensorType(tensor.dtype)


def computes_in(precision: Precision) -> ir.DataType:
    """What the graphs of ``precision`` compute in between their matrix products."""
    return FLOAT16 if precision == "fp16" else FLOAT


def _compute_in_half(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, Linear | LayerNorm) and not part.half:
            continue
        if isinstance(part, Linear | LayerNorm):
            part.dtype = FLOAT16
        if isinstance(part, Linear | Embedding):
            part.stored = FloatWeight(part.weight, FLOAT16)


def _floats(name: str, values: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """``values`` as float16 where that is asked for, or loses nothing; else as they are.

    Checkpoints trained or published in half precision take half the space, and the numbers stay the same.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if precision == "fp16" and not np.isfinite(half).all():
        raise ExportError(
            f"{name} holds {np.abs(values).max():.3g}, more than the 65504 of float16; export it in fp32."
        )
    return half if precision == "fp16" or np.array_equal(half.astype(np.float32), values) else values


def _quantised(
    module: nn.Module,
    state: State,
    writer: WeightWriter,
    precision: Precision,
    by_row: bool,
    parts: Collection[Part],
) -> set[str]:
    """Store the matrices of ``module`` in 8 or 4 bits; the names of those that are."""
    done = set()
    for path, part in module.named_modules():
        if not isinstance(part, Linear | Embedding) or not part.quantised or _part(path, part) not in parts:
            continue
        name = f"{path}.weight"
        if precision == "int4" and isinstance(part, Linear) and not part.is_table:
            part.stored = _int4(part, name, state[name], writer)
        else:
            part.stored = _int8(part, name, state[name], writer, by_row)
        done.add(name)
    return done


def _part(path: str, layer: Linear | Embedding) -> Part:
    """What a matrix belongs to, by transformers' name of it."""
    if isinstance(layer, Embedding) or layer.is_table:
        return "embeddings and head"
    return "attention" if "attn" in path or "Attention" in path else "feed-forward"


def _int8(
    part: Linear | Embedding, name: str, values: NDArray[np.float32], writer: WeightWriter, by_row: bool
) -> StoredWeight:
    transposed = isinstance(part, Linear) and not part.is_table
    numbers, scales = int8_rows(values)
    part.weight = _parameter(writer, name, numbers.T if transposed else numbers)
    part.weight_scales = _parameter(writer, f"{name}_scales", scales)
    return Int8Weight(part.weight, part.weight_scales, transposed=transposed, by_row=by_row)


def _int4(part: Linear, name: str, values: NDArray[np.float32], writer: WeightWriter) -> StoredWeight:
    blocks = int4_blocks(values, INT4_BLOCK_SIZE)
    part.weight = _parameter(writer, name, blocks.values)
    part.weight_scales = _parameter(writer, f"{name}_scales", blocks.scales)
    part.weight_zeros = _parameter(writer, f"{name}_zeros", blocks.zeros)
    parameters = part.weight, part.weight_scales, part.weight_zeros
    return Int4Weight(*parameters, shape=values.shape, block_size=INT4_BLOCK_SIZE)


def _parameter(writer: WeightWriter, name: str, values: NDArray[Any]) -> nn.Parameter:
    return nn.Parameter(values.shape, data=writer.add(name, values))


def fingerprint(state: State, said: Mapping[str, object]) -> str:
    """A sha256 of names, shapes and values: the identity of a network, whatever file holds it.

    ``said`` is what else its identity is made of; an empty one adds nothing.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{state[name].shape}".encode())
        digest.update(np.ascontiguousarray(state[name], dtype="<f4").tobytes())
    if said:
        digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()
