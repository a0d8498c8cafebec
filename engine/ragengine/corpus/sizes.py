"""How many passages there are, and how large, as far as it can be told without reading them all."""

from pathlib import Path
from typing import Final

from ragengine.corpus.documents import DocumentFile
from ragengine.corpus.given import GivenPassages
from ragengine.corpus.hf_dataset import Dataset
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.parquet import ParquetFile
from ragengine.corpus.sources import PathSource
from ragengine.errors import RagEngineError
from ragengine.storage.foreign_files import open_plain
from ragengine.storage.unpacking import GZIP_SUFFIX, unpacked

_SAMPLED_BYTES: Final = 1 << 20
_WORD_BYTES: Final = 6  # of an English word and the space behind it
_PAGES_BYTES: Final = 4  # how many times its size the text of a compressed document may have


def estimate_count(source: PathSource | GivenPassages) -> int:
    """About how many passages a source has.

    Exact for a dataset, a Parquet file and a list, from the number of lines in the first megabyte of a table
    or JSONL file, and from the size of a document.
    """
    try:
        if isinstance(source, GivenPassages | Dataset | ParquetFile):
            return source.count()
        if isinstance(source, DocumentFile):
            return text_bytes(source) // _passage_bytes(source.options) + 1
        lines, share = _sampled(source.path, source.within)
        rows = round(lines / share)
        if source.options.passage_words is not None:
            rows = max(rows, text_bytes(source) // _passage_bytes(source.options))
        return rows
    except (OSError, ValueError, RagEngineError):
        return 0  # reading raises it again, with the line's number


def text_bytes(source: PathSource) -> int:
    """About the largest size of the texts of a source whose files can be read."""
    files = source.files if isinstance(source, Dataset) else (source.path,)
    size = sum(file.stat().st_size for file in files)
    try:
        if isinstance(source, Dataset | ParquetFile):
            return source.text_bytes()
        if source.path.name.lower().endswith(GZIP_SUFFIX):
            content, share = _sample(source.path, source.within)
            return round(len(content) / share)
    except (OSError, ValueError, RagEngineError):
        pass  # as above
    return size * (_PAGES_BYTES if isinstance(source, DocumentFile) and source.kind == "docx" else 1)


def _passage_bytes(options: ReadingOptions) -> int:
    return (options.words - options.overlap) * _WORD_BYTES


def _sampled(path: Path, within: Path | None) -> tuple[int, float]:
    """The lines of the first megabyte of a file, and which share of it that is."""
    content, share = _sample(path, within)
    return content.count(b"\n") + (not content.endswith(b"\n")), share


def _sample(path: Path, within: Path | None) -> tuple[bytes, float]:
    """The first megabyte of a file's text, and which share of the file it is in, above 0."""
    with open_plain(path, within=within) as file:
        size = max(1, path.stat().st_size)
        texts = unpacked(file) if path.name.lower().endswith(GZIP_SUFFIX) else file
        content = texts.read(_SAMPLED_BYTES)
        return content, max(1, file.tell()) / size if content else 1.0
