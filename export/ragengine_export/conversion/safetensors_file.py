"""The arrays of a safetensors file that TensorFlow's or Flax's classes wrote, under their names."""

from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open

from ragengine.errors import ExportError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import why
from ragengine_export.conversion.matching import Arrays, Shape


def is_pytorch(path: Path) -> bool:
    """Whether PyTorch wrote a file, or it is none; transformers says then what is wrong with it."""
    try:
        with safe_open(path, "pt") as opened:
            return (opened.metadata() or {}).get("format") not in ("tf", "flax")
    except Exception:  # safetensors has types of its own, and none is of interest here
        return True


def array_shapes(path: Path) -> dict[str, Shape]:
    """The shapes of all arrays of a file; safetensors checks that it has their bytes.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  # no iterator
    except Exception as reason:  # safetensors has types of its own
        raise _unreadable(path, reason) from reason


def read_arrays(path: Path, names: Collection[str]) -> Arrays:
    """Read the arrays ``names`` of a file; otherwise as :func:`array_shapes`."""
    try:
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name).float().numpy() for name in names}
    except Exception as reason:
        raise _unreadable(path, reason) from reason


def _unreadable(path: Path, reason: Exception) -> ExportError:
    return ExportError(f"{path} cannot be read: {one_line(why(reason))}; save or download it again.")
