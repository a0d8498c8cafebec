"""The weights of a checkpoint folder that another framework than PyTorch wrote."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from transformers import PreTrainedModel

from ragengine.storage.foreign_files import file_mode
from ragengine_export.conversion import flax_file, hdf5, safetensors_file
from ragengine_export.conversion.matching import Arrays, Shape, StoredWeight, matched_state
from ragengine_export.conversion.names import stored_weight
from ragengine_export.untrusted import checked_size, index_files


class _Format(NamedTuple):
    shapes: Callable[[Path], dict[str, Shape]]
    read: Callable[[Path, Collection[str]], Arrays]


# In the order of transformers; None is PyTorch's.  TensorFlow's and Flax's classes write safetensors, too.
_FORMATS: Final[dict[str, _Format | None]] = {
    "model.safetensors": _Format(safetensors_file.array_shapes, safetensors_file.read_arrays),
    "pytorch_model.bin": None,
    "tf_model.h5": _Format(hdf5.array_shapes, hdf5.read_arrays),
    "flax_model.msgpack": _Format(flax_file.array_shapes, flax_file.read_arrays),
}


def converted_state(
    source: str, model_class: type[PreTrainedModel], config: Any, optional: str | None = None
) -> dict[str, torch.Tensor] | None:
    """The weights of a folder that TensorFlow or Flax wrote, as a state dict in float32.

    Args:
        source: the folder; a name on the hub is left to transformers.
        model_class: the PyTorch class that has the weights.
        config: its config, whose sizes have been checked.
        optional: the beginning of names that may be missing.

    Returns:
        None where transformers reads the weights by itself, or there are none.

    Raises:
        ExportError: a file cannot be read, or the weights are not those of the class and config.
    """
    name = next((name for name in _FORMATS if _files(Path(source), name)), None)
    read_as = _FORMATS[name] if name else None
    if name is None or read_as is None:
        return None
    files = _files(Path(source), name)
    for file in files:
        checked_size(file)
    if name == "model.safetensors" and safetensors_file.is_pytorch(files[0]):
        return None
    stored: list[StoredWeight] = [
        stored_weight(file, path, shape) for file in files for path, shape in read_as.shapes(file).items()
    ]
    return matched_state(source, model_class, config, stored, read_as.read, optional)


def _files(folder: Path, name: str) -> list[Path]:
    """The file ``name`` of a folder, or those that its index names."""
    if file_mode(folder / name):
        return [folder / name]
    index = folder / f"{name}.index.json"
    return [folder / file for file in index_files(index)] if file_mode(index) else []
