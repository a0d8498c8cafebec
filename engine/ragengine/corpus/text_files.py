"""Plain text and Markdown as passages: disjoint chunks of 100 words, as the paper splits Wikipedia.

A passage's title is the first heading of its Markdown file, else the file's name without its ending; a
heading that became the title is not repeated in the text.  Its id is ``file#number``, numbers from 0 in each
file.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ragengine.corpus.passage import Passage, utf8_lines
from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import shown_path, why

WORDS_PER_PASSAGE = 100
MARKDOWN_SUFFIXES = (".md", ".markdown")
TEXT_SUFFIXES = (".txt", *MARKDOWN_SUFFIXES)
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")


def read_texts(files: Iterable[Path], folder: Path | None) -> Iterator[Passage]:
    """Stream the passages of text and Markdown files.

    Args:
        files: the files.
        folder: where they were found; ids begin with a file's path in it, or with its name where it is None.
    """
    for file in files:
        yield from _passages(file, folder)


def find_text_files(folder: Path) -> list[Path]:
    """The text and Markdown files of a folder and its subfolders, sorted by path.

    Hidden files and folders are left out, and links to folders are not followed.
    """
    files = []

    def refuse(reason: OSError) -> None:
        raise PassagesError(f"{shown_path(reason.filename)} cannot be read: {why(reason)}.") from reason

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            Path(place, name)
            for name in names
            if name.lower().endswith(TEXT_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def _passages(path: Path, folder: Path | None) -> Iterator[Passage]:
    name = path.name if folder is None else path.relative_to(folder).as_posix()
    heading = _first_heading(path, folder) if path.suffix.lower() in MARKDOWN_SUFFIXES else None
    title, skipped = heading or (path.stem, 0)
    lines = (line for number, line in enumerate(utf8_lines(path, folder), start=1) if number != skipped)
    for number, text in enumerate(_chunks(lines)):
        yield Passage(id=f"{name}#{number}", title=title, text=text)


def _chunks(lines: Iterable[str]) -> Iterator[str]:
    """Texts of 100 words separated by single spaces; the last is what is left."""
    words: list[str] = []
    for line in lines:
        words += line.split()
        while len(words) >= WORDS_PER_PASSAGE:
            yield " ".join(words[:WORDS_PER_PASSAGE])
            del words[:WORDS_PER_PASSAGE]
    if words:
        yield " ".join(words)


def _first_heading(path: Path, folder: Path | None) -> tuple[str, int] | None:
    """The first ATX heading outside a fenced code block, and its line number from 1."""
    fence = ""
    for number, line in enumerate(utf8_lines(path, folder), start=1):
        opened = _FENCE.match(line)
        if opened and fence in ("", opened[1]):
            fence = "" if fence else opened[1]
        elif not fence and (heading := _HEADING.match(line.rstrip("\r\n"))) and heading[1]:
            return heading[1], number
    return None
