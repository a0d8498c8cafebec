"""`Corpus`: the passages at a path, whatever kind of file or folder they are in."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ragengine.arrays import FloatArray
from ragengine.corpus import hf_dataset
from ragengine.corpus.passage import Passage, utf8_lines
from ragengine.corpus.readers import read_jsonl, read_tsv
from ragengine.corpus.text_files import TEXT_SUFFIXES, WORDS_PER_PASSAGE, find_text_files, read_texts
from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import checked_path, file_mode, plain_size, shown_path, why

Kind: TypeAlias = Literal["tsv", "jsonl", "text", "dataset"]

_SAMPLED_BYTES = 1 << 20
_WORD_BYTES = 6  # of an English word and the space behind it


@dataclass(frozen=True)
class Corpus:
    """The passages at ``path``, read one at a time whatever their number.

    kind    ``tsv`` (DPR's ``psgs_w100.tsv``), ``jsonl``, ``text`` (text and Markdown files) or ``dataset``
            (a folder of ``datasets.Dataset.save_to_disk``)
    files   the files that are read, in order
    bytes   their size, an upper bound of the size of the texts

    :meth:`open` looks at the path once; everything else uses what it found.
    """

    path: Path
    kind: Kind
    files: tuple[Path, ...]
    bytes: int

    @classmethod
    def open(cls, path: str | Path) -> "Corpus":
        """Find out what is at ``path`` and list its files.

        Args:
            path: a ``.tsv``, a ``.jsonl``, a text or Markdown file, a folder of such texts (with its
                subfolders), or a folder of ``datasets.Dataset.save_to_disk``.  It may be a link; one inside a
                folder must not lead out of it.

        Returns:
            The corpus; no passage has been read.

        Raises:
            PassagesError: there is nothing at ``path``, or nothing that can be read as passages.
        """
        path = checked_path(path, PassagesError)
        try:
            folder = path if stat.S_ISDIR(file_mode(path)) else None
            kind, files = (_file_kind(path), [path]) if folder is None else _listed_folder(folder)
        except OSError as reason:
            raise PassagesError(f"{shown_path(path)} cannot be read: {why(reason)}.") from reason
        return cls(path, kind, tuple(files), sum(_size(file, folder) for file in files))

    def estimate(self) -> int:
        """About how many passages there are.

        Exact for a dataset, from the number of lines in the first megabyte of a ``.tsv`` or ``.jsonl``, and
        from the size of text files.
        """
        if self.kind == "dataset":
            return hf_dataset.count_rows(self.files)
        if self.kind == "text":
            return self.bytes // (WORDS_PER_PASSAGE * _WORD_BYTES) + len(self.files)
        lines = sampled = 0
        try:
            for line in utf8_lines(self.path):
                lines, sampled = lines + 1, sampled + len(line.encode())
                if sampled >= _SAMPLED_BYTES:
                    break
        except PassagesError:
            pass  # reading every line raises it again, with the line's number
        return lines * self.bytes // max(sampled, 1)

    def read(self, first_row: int = 0) -> Iterator[Passage]:
        """Stream the passages in file order.

        Args:
            first_row: the id of the first passage, where a ``.jsonl`` or a dataset has no ids of its own;
                those that follow count up from it.

        Raises:
            PassagesError: naming the file and the line or row, what was found and the remedy.
        """
        if self.kind == "tsv":
            return read_tsv(self.path)
        if self.kind == "jsonl":
            return read_jsonl(self.path, first_row)
        if self.kind == "text":
            return read_texts(self.files, None if self.files == (self.path,) else self.path)
        return hf_dataset.read_passages(self.files, first_row)

    def has_embeddings(self) -> bool:
        """Whether this is a dataset with the column ``embeddings``."""
        return self.kind == "dataset" and hf_dataset.has_embeddings(self.files)

    def read_embeddings(self) -> Iterator[FloatArray]:
        """Stream the column ``embeddings`` of a dataset as blocks, float32 [rows, E]."""
        return hf_dataset.read_embeddings(self.files)


def _listed_folder(folder: Path) -> tuple[Kind, list[Path]]:
    if not hf_dataset.is_dataset(folder) and (texts := find_text_files(folder)):
        return "text", texts
    return "dataset", hf_dataset.data_files(folder)  # which says what is missing where there are no texts


def _file_kind(path: Path) -> Kind:
    if not file_mode(path):
        raise PassagesError(f"{path} does not exist; a passage file or folder was expected there.")
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return "tsv"
    if suffix == ".jsonl":
        return "jsonl"
    if suffix in TEXT_SUFFIXES:
        return "text"
    raise PassagesError(
        f"{path} is not a supported kind of passage file; give a .tsv with the header id, text, title, "
        "a .jsonl, a .txt or .md, a folder of such texts, or one written by datasets.Dataset.save_to_disk."
    )


def _size(file: Path, folder: Path | None) -> int:
    """The bytes of a file, known to be one that can be read, and to be inside the folder that has it."""
    checked_path(file, PassagesError)
    try:
        return plain_size(file, folder)
    except (OSError, ValueError) as reason:
        raise PassagesError(f"{shown_path(file)} cannot be read: {why(reason)}.") from reason
