"""Folders written by ``datasets.Dataset.save_to_disk``: what Hugging Face's custom RAG index is made of.

They are Arrow streams listed in ``state.json``.  pyarrow reads them, one record batch at a time: that avoids
importing ``datasets``, and nothing in the folder is ever run or unpickled.
"""

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragengine.arrays import FloatArray
from ragengine.corpus import arrow_tables
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import open_plain, read_plain
from ragengine.storage.strict_json import MAX_BYTES

_STATE: Final = "state.json"
_SPLITS: Final = "dataset_dict.json"
_FILE_NAME: Final = re.compile(r"(?!\.)[\w. ()+,@=-]{1,250}")


@dataclass(frozen=True)
class Dataset:
    """The dataset in ``folder``, whose Arrow files are ``files``."""

    folder: Path
    files: tuple[Path, ...]
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the columns of text, title and, where there is one, id."""
        names = self._names()
        if names is None:
            return
        columns = arrow_tables.columns_of(self.folder, names, self.options)
        yield from arrow_tables.read_batches(self.folder, self._batches(), columns, self.options)

    def count(self) -> int:
        """The number of rows, from the headers of the record batches."""
        return sum(batch.num_rows for batch in self._batches())

    def text_bytes(self) -> int:
        """The size of its columns, without the embeddings, which are no texts."""
        return sum(
            int(column.nbytes)
            for batch in self._batches()
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if name != arrow_tables.EMBEDDINGS
        )

    def has_embeddings(self) -> bool:
        """Whether the dataset has the column ``embeddings``."""
        return arrow_tables.EMBEDDINGS in (self._names() or ())

    def read_embeddings(self, first: int = 0) -> Iterator[FloatArray]:
        """Stream the column ``embeddings`` from row ``first`` on as blocks, float32 [rows, E]."""
        return arrow_tables.read_embeddings(self.folder, self._batches(), first=first)

    def _names(self) -> list[str] | None:
        """The names of the columns; None where there are no rows."""
        first = next(self._batches(), None)
        return None if first is None else list(first.schema.names)

    def _batches(self) -> Iterator[Any]:
        """The record batches of all files, without the empty ones."""
        pyarrow = arrow_tables.import_pyarrow()
        for path in self.files:
            try:
                with open_plain(path, within=path.parent) as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                with pyarrow.ipc.open_stream(pyarrow.py_buffer(mapped)) as reader:
                    yield from (batch for batch in reader if batch.num_rows)
            except (OSError, ValueError, pyarrow.ArrowException) as reason:
                raise PassagesError(
                    f"{path} cannot be read as an Arrow stream: {one_line(reason)}."
                ) from reason


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
