"""Passage, question and id files of one huge line or extreme nesting: memory stays proportional."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ragengine.corpus.corpus import Corpus
from ragengine.evaluation import read_questions
from ragengine.indexing.import_index import read_ids
from tests.robustness.children import Case

_SIZE: Final = 4 << 20
"""Bytes of a file."""
_MOST_MEMORY: Final = 14 * _SIZE
"""The file's bytes, its line, its text (up to 4 bytes a character), and the parser's copies."""
_HEADER = b"id\ttext\ttitle\n"
READERS: dict[str, Callable[[Path], Iterable[object]]] = {
    "passages.tsv": lambda path: Corpus.open(path).read(),
    "passages.csv": lambda path: Corpus.open(path).read(),
    "passages.jsonl": lambda path: Corpus.open(path).read(),
    "passages.txt": lambda path: Corpus.open(path).read(),
    "passages.md": lambda path: Corpus.open(path).read(),
    "questions.jsonl": read_questions,
    "ids.txt": read_ids,
    "ids.json": read_ids,
}
CONTENTS: dict[str, Callable[[], bytes]] = {
    "letters": lambda: b"a" * _SIZE,
    "NUL": lambda: bytes(_SIZE),
    "spaces": lambda: b" " * _SIZE,
    "line feeds": lambda: b"\n" * (_SIZE // 8),
    "tabs": lambda: _HEADER + b"\t" * (_SIZE // 4),
    "an open quote": lambda: _HEADER + b'1\t"' + b"a\n" * (_SIZE // 2),
    "quotes": lambda: _HEADER + b'"' * _SIZE,
    "brackets": lambda: b"[" * _SIZE,
    "objects": lambda: b'{"text":' * (_SIZE // 8),
    "digits": lambda: b"9" * _SIZE,
    "escapes": lambda: b'"' + b"\\u0000" * (_SIZE // 6) + b'"',
    "headings": lambda: b"#" * _SIZE,
    "many headings": lambda: b"# a\n" * (_SIZE // 16),
    "fences": lambda: b"```\n" * (_SIZE // 16),
    "hashes behind a heading": lambda: b"# " + b"# " * (_SIZE // 64),
    "one text": lambda: b'{"id": "1", "title": "", "text": "' + b"a" * _SIZE + b'"}',
    "one question": lambda: b'{"question": "' + b"a" * _SIZE + b'", "answers": []}',
}


def prepare(base: Path) -> None:
    """Do nothing: every case makes its file."""


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    for name, read in READERS.items():
        for what, content in CONTENTS.items():
            yield Case(f"{name} of {what}", partial(_read_file, name, read, content), memory=_MOST_MEMORY)


def _read_file(
    name: str, read: Callable[[Path], Iterable[object]], content: Callable[[], bytes], folder: Path
) -> None:
    (folder / name).write_bytes(content())
    for _ in read(folder / name):
        pass
