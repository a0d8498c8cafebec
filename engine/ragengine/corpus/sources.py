"""Which reader reads what is at a path: a source of passages for each file or dataset."""

import stat
from pathlib import Path
from typing import Final, TypeAlias

from ragengine.corpus import hf_dataset
from ragengine.corpus.delimited import Table
from ragengine.corpus.documents import DOCUMENT_SUFFIXES, DocumentFile
from ragengine.corpus.folder import LeftOut, count_left_out, files_below
from ragengine.corpus.json_lines import JsonLines
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.parquet import ParquetFile
from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import checked_path, file_mode, shown_path, why
from ragengine.storage.unpacking import GZIP_SUFFIX

FileSource: TypeAlias = Table | JsonLines | ParquetFile | DocumentFile
"""What reads one file: it has ``path``, ``within`` and ``read()``, and ``missing()`` says why it does not."""
PathSource: TypeAlias = FileSource | hf_dataset.Dataset

_SEPARATORS: Final = {".tsv": "\t", ".csv": ","}
_NEVER_PACKED: Final = frozenset({"pdf", "docx"})  # they are compressed, and read from their ends
SUPPORTED: Final = (
    ".tsv, .csv or .jsonl of passages, .parquet, .txt, .md, .html, .pdf, .docx (text formats also as .gz), a "
    "folder of such files, or one written by datasets.Dataset.save_to_disk"
)


def open_path(path: Path, options: ReadingOptions) -> tuple[list[PathSource], list[LeftOut]]:
    """The sources at a path, and the files of a folder that are left out.

    Raises:
        PassagesError: there is nothing at ``path``, or nothing that can be read as passages.
    """
    try:
        mode = file_mode(path)
        if stat.S_ISDIR(mode):
            if hf_dataset.is_dataset(path):
                return [hf_dataset.Dataset(path, tuple(hf_dataset.data_files(path)), options)], []
            return _open_folder(path, options)
    except OSError as reason:
        raise PassagesError(f"{shown_path(path)} cannot be read: {why(reason)}.") from reason
    if not mode:
        raise PassagesError(f"{path} does not exist; a passage file or folder was expected there.")
    source = _file_source(path, None, options)
    if source is None:
        raise PassagesError(f"{path} is not a supported kind of passage file; give a {SUPPORTED}.")
    return [source], []


def _open_folder(folder: Path, options: ReadingOptions) -> tuple[list[PathSource], list[LeftOut]]:
    sources: list[PathSource] = []
    left_out: list[LeftOut] = []
    for path in files_below(folder):
        source = _file_source(path, folder, options)
        reason = "" if source is None else _why_left_out(source)
        if source is None or reason:
            left_out.append(LeftOut(path, reason or ""))
        else:
            sources.append(source)
    if not sources:
        found = f" ({count_left_out(folder, left_out)})" if left_out else ""
        raise PassagesError(
            f"{folder} has no state.json, so it is not a folder written by datasets.Dataset.save_to_disk, "
            f"and it has no file that can be read as passages{found}; give a {SUPPORTED}."
        )
    return sources, left_out


def _why_left_out(source: FileSource) -> str | None:
    """Why a file of a folder is none of passages; a fault that it has is said when it is read."""
    checked_path(source.path, PassagesError)
    try:
        return source.missing()
    except PassagesError:
        return None


def _file_source(path: Path, within: Path | None, options: ReadingOptions) -> FileSource | None:
    """The reader of a file by the ending of its name; None where no reader has it."""
    name = path.name.lower()
    packed = name.endswith(GZIP_SUFFIX)
    suffix = Path(name.removesuffix(GZIP_SUFFIX)).suffix
    if suffix in _SEPARATORS:
        return Table(path, within, _SEPARATORS[suffix], options)
    if suffix == ".jsonl":
        return JsonLines(path, within, options)
    if suffix == ".parquet" and not packed:
        return ParquetFile(path, within, options)
    kind = DOCUMENT_SUFFIXES.get(suffix)
    if kind is None or (packed and kind in _NEVER_PACKED):
        return None
    return DocumentFile(path, within, kind, options)
