"""`Corpus`: the passages of the inputs of a build, whatever kinds of files and folders they are in."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from ragengine.arrays import FloatArray
from ragengine.corpus.documents import DocumentFile
from ragengine.corpus.folder import LeftOut, say_left_out
from ragengine.corpus.given import GivenPassages
from ragengine.corpus.hf_dataset import Dataset
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.parquet import ParquetFile
from ragengine.corpus.passage import Passage
from ragengine.corpus.sizes import estimate_count, text_bytes
from ragengine.corpus.sources import PathSource, open_path
from ragengine.errors import InputError, PassagesError
from ragengine.messages import log, one_line, short_repr
from ragengine.storage.foreign_files import checked_path, plain_size, shown_path, why

PassagesInput: TypeAlias = str | Path | Iterable[str | Path] | Iterable[Mapping[str, object]] | Iterable[Any]
"""A path, several paths, or passages as dicts or documents."""

_SHOWN: Final = 3


@dataclass(frozen=True)
class Corpus:
    """Passages, read one at a time whatever their number.

    inputs    the paths that were named; none where a program gives the passages
    sources   what reads each file or dataset, in order
    left_out  the files of folders that are not read
    bytes     about the size of the texts, unpacked
    options   how they are read

    :meth:`open` looks at the paths once; everything else uses what it found.
    """

    inputs: tuple[Path, ...]
    sources: tuple[PathSource | GivenPassages, ...]
    left_out: tuple[LeftOut, ...]
    bytes: int
    options: ReadingOptions

    @classmethod
    def open(cls, passages: PassagesInput, options: ReadingOptions | None = None) -> "Corpus":
        """Find out what the inputs are, and list their files.

        Args:
            passages: a path or several: a table (``.tsv``, ``.csv``), a ``.jsonl``, a ``.parquet``, a
                document (text, Markdown, HTML, PDF, DOCX), a folder of such files (with its subfolders), or a
                folder of ``datasets.Dataset.save_to_disk``.  One may be a link; one inside a folder must not
                lead out of it.  Or an iterable of passages: dicts with ``text``, ``title`` and ``id``, or
                documents.
            options: how they are read.

        Returns:
            The corpus; no passage has been read.  What is left out of a folder is logged.

        Raises:
            PassagesError: there is nothing at a path, or nothing that can be read as passages; or, if strict,
                a file of a folder is left out.
            InputError: ``passages`` is none of these.
        """
        options = options or ReadingOptions()
        paths = _paths(passages)
        if paths is None:
            if not isinstance(passages, Iterable) or isinstance(passages, Mapping | bytes):
                raise InputError(
                    f"passages is {short_repr(passages)}; give a path, paths, or passages as dicts."
                )
            return cls((), (GivenPassages(passages, options),), (), 0, options)
        sources: list[PathSource] = []
        left_out: list[LeftOut] = []
        for path in paths:
            found, not_read = open_path(path, options)
            say_left_out(path, not_read, strict=options.strict)
            sources += found
            left_out += not_read
        for source in sources:
            _check_files(source)
        texts = sum(map(text_bytes, sources))
        return cls(tuple(paths), tuple(sources), tuple(left_out), texts, options)

    @property
    def name(self) -> str:
        """The inputs by their names, in one line."""
        if not self.inputs:
            return "passages of the program"
        names = [one_line(path.name) for path in self.inputs[:_SHOWN]]
        more = len(self.inputs) - _SHOWN
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, in order."""
        return tuple(file for source in self.sources for file in _files(source))

    @property
    def given(self) -> bool:
        """Whether a program gives the passages, so that they can be read once only."""
        return not self.inputs

    def estimate(self) -> int:
        """About how many passages there are; 0 where that cannot be told."""
        return sum(map(estimate_count, self.sources))

    def read(self, first_row: int = 0) -> Iterator[Passage]:
        """Stream the passages in the order of the inputs.

        Args:
            first_row: the number of the first passage; those without an id of their own have their number as
                their id.

        Raises:
            PassagesError: naming the file and the line or row, what was found and the remedy.
        """
        row = first_row
        empty: list[Path] = []
        for source in self.sources:
            before = row
            for passage in source.read():
                yield replace(passage, id=str(row)) if passage.numbered else passage
                row += 1
            if row == before and isinstance(source, DocumentFile):
                empty.append(source.path)
        self.say_empty(empty)

    def has_embeddings(self) -> bool:
        """Whether every source has a column ``embeddings``, which one of its own alone can have."""
        with_them = [source for source in self._tables() if source.has_embeddings()]
        if with_them and len(with_them) < len(self.sources):
            log.warning(
                "The column 'embeddings' of %s is not used, as others of the inputs have none.",
                shown_path(_files(with_them[0])[0]),
            )
        return bool(with_them) and len(with_them) == len(self.sources)

    def read_embeddings(self, first: int = 0) -> Iterator[FloatArray]:
        """Stream the columns ``embeddings`` from row ``first`` of all on, as blocks, float32 [rows, E]."""
        for source in self._tables():
            if first and first >= (count := source.count()):
                first -= count
                continue
            yield from source.read_embeddings(first)
            first = 0

    def _tables(self) -> list[Dataset | ParquetFile]:
        return [source for source in self.sources if isinstance(source, Dataset | ParquetFile)]

    def say_empty(self, empty: list[Path]) -> None:
        """Log which documents, those at the paths ``empty``, have no text; an error where that is strict."""
        if not empty:
            return
        names = ", ".join(shown_path(path.name) for path in empty[:_SHOWN])
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        said = (
            f"{len(empty)} {'document has' if len(empty) == 1 else 'documents have'} no text: {names}{more}"
        )
        if any(path.suffix.lower() == ".pdf" for path in empty):
            said += " (scanned pages have to be recognised first, by a program for OCR)"
        if self.options.strict:
            raise PassagesError(
                f"{said}; remove what is empty, or read the folder without strict (--strict)."
            )
        log.warning("%s.", said)


def _paths(passages: PassagesInput) -> list[Path] | None:
    """The paths that ``passages`` names; None where it is not of paths."""
    if isinstance(passages, str | os.PathLike):
        return [checked_path(passages, PassagesError)]
    if not isinstance(passages, list | tuple) or not passages:
        return None
    paths = [path for path in passages if isinstance(path, str | os.PathLike)]
    return [checked_path(path, PassagesError) for path in paths] if len(paths) == len(passages) else None


def _files(source: PathSource | GivenPassages) -> tuple[Path, ...]:
    if isinstance(source, GivenPassages):
        return ()
    return source.files if isinstance(source, Dataset) else (source.path,)


def _check_files(source: PathSource) -> None:
    """Check that the files of a source can be read, and are inside the folder that has them."""
    folder = source.folder if isinstance(source, Dataset) else source.within
    for file in _files(source):
        checked_path(file, PassagesError)
        try:
            plain_size(file, folder)
        except (OSError, ValueError) as reason:
            raise PassagesError(f"{shown_path(file)} cannot be read: {why(reason)}.") from reason
