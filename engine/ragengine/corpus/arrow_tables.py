"""Passages and embeddings in Arrow's record batches, which datasets folders and Parquet files are read as."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Columns, Passage
from ragengine.corpus.splitting import split_record
from ragengine.errors import PassagesError
from ragengine.installation import missing_package
from ragengine.messages import one_line

EMBEDDINGS: Final = "embeddings"


def columns_of(path: Path, names: Iterable[str], options: ReadingOptions) -> Columns:
    """The columns of the table at ``path``; raises :class:`PassagesError` where it lacks one."""
    try:
        return Columns.among(names, options)
    except ValueError as reason:
        raise PassagesError(f"{path} has {reason}, or with Dataset.rename_column.") from None


def read_batches(
    path: Path, batches: Iterable[Any], columns: Columns, options: ReadingOptions
) -> Iterator[Passage]:
    """Stream the passages of the record batches of the table at ``path``."""
    row = 0
    for batch in batches:
        for record in _records(validated(path, batch.select(kept_columns(batch.schema, columns)))):
            passage = columns.passage(record, f"{path}, row {row}")
            yield from split_record(passage, options)
            row += 1


def read_embeddings(path: Path, batches: Iterable[Any], row: int = 0, first: int = 0) -> Iterator[FloatArray]:
    """Stream the column ``embeddings`` as blocks, float32 [rows, E]; E may differ between blocks.

    ``row`` is the number of the first row of ``batches``; rows before ``first`` are left out.
    """
    pyarrow = import_pyarrow()
    for batch in batches:
        if row < first:
            skipped = min(first - row, batch.num_rows)
            row, batch = row + skipped, batch.slice(skipped)
            if not batch.num_rows:
                continue
        column = validated(path, batch.select([EMBEDDINGS])).column(EMBEDDINGS)
        kinds = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
        if not any(is_kind(column.type) for is_kind in kinds) or not pyarrow.types.is_floating(
            column.type.value_type
        ):
            raise PassagesError(
                f"{path}: the column 'embeddings' is of type {one_line(column.type)}; "
                "a list of floating-point numbers a row was expected."
            )
        lengths = pyarrow.compute.list_value_length(column)  # null where the row is
        numbers = column.flatten().to_numpy(zero_copy_only=False)  # nulls become NaN, refused later
        expected = lengths[0].as_py()
        for offset, length in enumerate(lengths.to_pylist()):
            if length is None or length != expected:
                raise PassagesError(
                    f"{path}, row {row + offset}: the embedding has {length or 0} numbers, "
                    f"row {row} has {expected or 0}; all rows must have the same."
                )
        yield numbers.astype(np.float32).reshape(len(column), -1)
        row += len(column)


def validated(path: Path, batch: Any) -> Any:
    """``batch``, once all its offsets are known to be inside its buffers.

    pyarrow takes them on trust, and a damaged one would crash the process.
    """
    try:
        batch.validate(full=True)
    except (import_pyarrow().ArrowException, UnicodeDecodeError) as reason:
        raise PassagesError(f"{path} is damaged: {one_line(reason)}; save or copy it again.") from reason
    return batch


def import_pyarrow() -> Any:
    """pyarrow; raises :class:`DependencyError` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError as reason:
        raise missing_package("Datasets folders and Parquet files need", reason, "documents") from reason
    return pyarrow


def kept_columns(schema: Any, columns: Columns) -> list[str]:
    """The names of the columns that are read: those of the passage, and others of plain values."""
    types = import_pyarrow().types
    plain = (
        *(types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean),
        *(types.is_temporal, types.is_decimal, types.is_dictionary),
    )
    return [
        field.name
        for field in schema
        if field.name in columns.names or (field.name and any(is_kind(field.type) for is_kind in plain))
    ]


def _records(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch, one at a time: many may be one text that is stored once."""
    names, columns = batch.schema.names, batch.columns
    for row in range(batch.num_rows):
        yield {name: _plain(column[row].as_py()) for name, column in zip(names, columns, strict=True)}


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates, times and decimals as texts, and no NaN, as pandas writes for null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)
