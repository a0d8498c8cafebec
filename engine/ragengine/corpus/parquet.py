"""Parquet files, read by pyarrow a few rows at a time."""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragengine.arrays import FloatArray
from ragengine.corpus import arrow_tables
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Columns, Passage
from ragengine.errors import PassagesError, RagEngineError
from ragengine.installation import pip_install
from ragengine.messages import one_line
from ragengine.storage.foreign_files import open_plain, shown_path, why

_BATCH_BYTES: Final = 1 << 24
_BATCH_ROWS: Final = 1024
_BUFFER: Final = 1 << 20
_MOST_COLUMN: Final = 1 << 31
"""Unpacked bytes of one column of a row group; writers make groups of 128 MB to 1 GB with all columns."""


@dataclass(frozen=True)
class ParquetFile:
    """The Parquet file at ``path``, found in the folder ``within`` or named by the user."""

    path: Path
    within: Path | None
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the columns of text, title and, where there is one, id."""
        schema = self._schema()
        columns = arrow_tables.columns_of(self.path, schema.names, self.options)
        wanted = arrow_tables.kept_columns(schema, columns)
        yield from arrow_tables.read_batches(self.path, self._batches(wanted, wanted), columns, self.options)

    def missing(self) -> str | None:
        """What the table lacks, for a file that nobody named: one of something else than passages."""
        if importlib.util.find_spec("pyarrow") is None:
            return f"needs pyarrow: {pip_install('documents')}"
        try:
            Columns.among(self._schema().names, self.options)
        except ValueError as reason:
            return str(reason).partition(";")[0]
        return None

    def count(self) -> int:
        """The number of rows, from the end of the file."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def text_bytes(self) -> int:
        """The size of its columns unpacked, without the embeddings, which are no texts, as it says."""
        with self._opened() as file:
            groups = (file.metadata.row_group(group) for group in range(file.metadata.num_row_groups))
            columns = (group.column(number) for group in groups for number in range(group.num_columns))
            return sum(
                max(int(column.total_uncompressed_size), int(column.total_compressed_size))
                for column in columns
                if _name(column) != arrow_tables.EMBEDDINGS
            )

    def has_embeddings(self) -> bool:
        """Whether there is a column ``embeddings``."""
        return arrow_tables.EMBEDDINGS in self._schema().names

    def read_embeddings(self, first: int = 0) -> Iterator[FloatArray]:
        """Stream the column ``embeddings`` from row ``first`` on as blocks, float32 [rows, E].

        Row groups before that are not read.
        """
        with self._opened() as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        skipped = row = 0
        while skipped < len(sizes) and row + sizes[skipped] <= first:
            row += sizes[skipped]
            skipped += 1
        batches = self._batches([arrow_tables.EMBEDDINGS], groups=range(skipped, len(sizes)))
        return arrow_tables.read_embeddings(self.path, batches, row, first)

    def _schema(self) -> Any:
        """The names and types of the columns."""
        with self._opened() as file:
            return file.schema_arrow

    def _batches(
        self, columns: list[str], texts: list[str] | None = None, groups: range | None = None
    ) -> Iterator[Any]:
        with self._opened(texts) as file:
            rows = _rows_at_once(file, columns)
            for batch in file.iter_batches(rows, columns=columns, row_groups=groups):
                if batch.num_rows:
                    yield batch

    @contextlib.contextmanager
    def _opened(self, texts: list[str] | None = None) -> Iterator[Any]:
        """The file, open while it is used; raises :class:`PassagesError` for what pyarrow raises.

        ``texts`` stay dictionaries where they are stored as such: a text that is there a million times is
        held once.
        """
        pyarrow = arrow_tables.import_pyarrow()
        try:
            settings = {"read_dictionary": texts, "buffer_size": _BUFFER, "pre_buffer": False}
            with (
                open_plain(self.path, within=self.within) as source,
                pyarrow.parquet.ParquetFile(source, **settings) as file,
            ):
                yield file
        except RagEngineError:
            raise
        except (OSError, ValueError, pyarrow.ArrowException) as reason:
            said = one_line(why(reason)) if isinstance(reason, OSError) else one_line(reason)
            raise PassagesError(f"{shown_path(self.path)} cannot be read as Parquet: {said}.") from reason


def _rows_at_once(file: Any, columns: list[str]) -> int:
    """How many rows a batch may have, by what the file says of its size."""
    largest = 1
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        sizes = [
            rows.column(number).total_uncompressed_size
            for number in range(rows.num_columns)
            if _name(rows.column(number)) in columns
        ]
        if max(sizes, default=0) > _MOST_COLUMN:
            raise ValueError(
                f"a column of its row group {group} unpacks to {max(sizes)} bytes, more than the "
                f"{_MOST_COLUMN} that are read; write it with smaller row groups"
            )
        largest = max(largest, sum(sizes) // max(rows.num_rows, 1))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))


def _name(column: Any) -> str:
    """The name of the column that a column chunk is of, or is a part of."""
    return str(column.path_in_schema).split(".")[0]
