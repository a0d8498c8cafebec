"""Folders written by ``datasets.Dataset.save_to_disk``: what Hugging Face's custom RAG index is made of.

They are Arrow streams listed in ``state.json``.  pyarrow reads them, one record batch at a time: that avoids
importing ``datasets``, and nothing in the folder is ever run or unpickled.
"""

import itertools
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.corpus.passage import Passage, checked_passage
from ragengine.errors import DependencyError, PassagesError
from ragengine.installation import pip_install
from ragengine.messages import one_line
from ragengine.storage.foreign_files import open_plain, read_plain
from ragengine.storage.strict_json import MAX_BYTES

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_FILE_NAME = re.compile(r"(?!\.)[\w. ()+,@=-]{1,250}")
_TEXTS = ("title", "text")


def read_passages(files: Sequence[Path], first_row: int = 0) -> Iterator[Passage]:
    """Stream the columns ``title``, ``text`` and, where there is one, ``id`` (else the row number)."""
    row = 0
    for batch in _batches(files, _TEXTS):
        names = [name for name in ("id", "title", "text") if name in batch.schema.names]
        for record in _validated(files[0].parent, batch.select(names)).to_pylist():
            yield checked_passage(record, f"{files[0].parent}, row {row}", first_row + row)
            row += 1


def count_rows(files: Sequence[Path]) -> int:
    """The number of rows, from the headers of the record batches."""
    return sum(batch.num_rows for batch in _batches(files, _TEXTS))


def has_embeddings(files: Sequence[Path]) -> bool:
    """Whether the dataset has the column ``embeddings``."""
    return any("embeddings" in batch.schema.names for batch in itertools.islice(_batches(files, _TEXTS), 1))


def read_embeddings(files: Sequence[Path]) -> Iterator[FloatArray]:
    """Stream the column ``embeddings`` as blocks, float32 [rows, E]; E may differ between blocks."""
    pyarrow = _pyarrow()
    row = 0
    for batch in _batches(files, ("embeddings",)):
        folder = files[0].parent
        column = _validated(folder, batch.select(["embeddings"])).column("embeddings")
        kinds = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
        if not any(is_kind(column.type) for is_kind in kinds) or not pyarrow.types.is_floating(
            column.type.value_type
        ):
            raise PassagesError(
                f"{folder}: the column 'embeddings' is of type {one_line(column.type)}; "
                "a list of floating-point numbers a row was expected."
            )
        lengths = pyarrow.compute.list_value_length(column)  # null where the row is
        numbers = column.flatten().to_numpy(zero_copy_only=False)  # nulls become NaN, refused later
        expected = lengths[0].as_py()
        for offset, length in enumerate(lengths.to_pylist()):
            if length is None or length != expected:
                raise PassagesError(
                    f"{folder}, row {row + offset}: the embedding has {length or 0} numbers, "
                    f"row {row} has {expected or 0}; all rows must have the same."
                )
        yield numbers.astype(np.float32).reshape(len(column), -1)
        row += len(column)


def _batches(files: Sequence[Path], columns: tuple[str, ...]) -> Iterator[Any]:
    """The record batches of all files of the dataset, without the empty ones; ``columns`` must be there."""
    pyarrow = _pyarrow()
    for path in files:
        try:
            with open_plain(path, within=path.parent) as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            with pyarrow.ipc.open_stream(pyarrow.py_buffer(mapped)) as reader:
                absent = [name for name in columns if name not in reader.schema.names]
                if absent:
                    raise PassagesError(
                        f"{path} has no column {' and no column '.join(map(repr, absent))}; its columns are "
                        f"{one_line(', '.join(reader.schema.names))}; rename them with Dataset.rename_column."
                    )
                yield from (batch for batch in reader if batch.num_rows)
        except (OSError, ValueError, pyarrow.ArrowException) as reason:
            raise PassagesError(f"{path} cannot be read as an Arrow stream: {one_line(reason)}.") from reason


def _validated(folder: Path, batch: Any) -> Any:
    """``batch``, once all its offsets are known to be inside its buffers.

    pyarrow takes them on trust, and a damaged one would crash the process.
    """
    try:
        batch.validate(full=True)
    except (_pyarrow().ArrowException, UnicodeDecodeError) as reason:
        raise PassagesError(f"{folder} is damaged: {one_line(reason)}; save or copy it again.") from reason
    return batch


def is_dataset(folder: Path) -> bool:
    """Whether ``datasets`` wrote this folder: one dataset, or a dictionary of several splits."""
    return (folder / _STATE).exists() or (folder / _SPLITS).exists()


def data_files(folder: Path) -> list[Path]:
    """The Arrow files that ``state.json`` lists, in order; raises :class:`PassagesError`."""
    if (folder / _SPLITS).exists():
        raise PassagesError(f"{folder} holds several splits; give the folder of one of them.")
    try:
        state = json.loads(read_plain(folder / _STATE, MAX_BYTES, within=folder))
        names = [entry["filename"] for entry in state["_data_files"]]
        rearranged = bool(state.get("_indices_data_files"))
    except FileNotFoundError:
        raise PassagesError(
            f"{folder} has no {_STATE}, so it is not a folder written by datasets.Dataset.save_to_disk, "
            "and it has no text or Markdown files."
        ) from None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as reason:
        raise PassagesError(
            f"{folder / _STATE} is not what datasets writes ({reason!r}); save it again."
        ) from reason
    if rearranged:
        raise PassagesError(
            f"{folder} was written by an old datasets with its rows rearranged; save it again."
        )
    for name in names:
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise PassagesError(
                f"{folder / _STATE} names the file {name!a:.120}, which may be outside the folder; "
                "save it again."
            )
    return [folder / name for name in names]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
    except ModuleNotFoundError as reason:
        raise DependencyError(
            "A datasets folder is read with pyarrow, which is not installed; "
            f"run {pip_install('export')}, or write the passages as .jsonl."
        ) from reason
    return pyarrow
