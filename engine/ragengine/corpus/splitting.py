"""Splitting: the parts of a document as passages of a number of words.

A passage ends where a heading begins, and what is above it, the document's title and the headings, is its
title: ``Guide: Setup: Steps``.  Words of running text are joined by single spaces.  A code block or a table
is kept together with its line breaks, in a passage that may be longer for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage

LONGEST_HEADING: Final = 500
"""Characters of a heading or a title; a longer one is text, as it would be in every passage below it."""
LONGEST_BLOCK: Final = 1 << 17
"""Characters of a code block or table that a reader holds; a longer one is read as several."""
_LARGEST_BLOCK: Final = 10  # times the words of a passage: a larger code block or table is split at line ends
_LONGEST_PASSAGE: Final = 1 << 20  # characters after which a passage ends, however few words these are


@dataclass(frozen=True, slots=True)
class Title:
    """The title that a document gives itself, which comes before its other parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; ``level`` is 1 for the highest, and 0 for a title that stands in the text."""

    text: str
    level: int


@dataclass(frozen=True, slots=True)
class Text:
    """Running text; words do not go on from one to the next."""

    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Text whose lines belong together: code, a table."""

    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """The beginning of a page, where a passage begins; ``number`` is from 1, or None if it is not known."""

    number: int | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """What a document says about itself, beside its title; this comes before its text."""

    values: Mapping[str, str]


Part: TypeAlias = Title | Fields | Heading | Text | Block | Page


def document_title(parts: Iterable[Part], file_title: str) -> str:
    """The title a document gives itself, else its first heading of level 1, else ``file_title``."""
    for part in parts:
        if isinstance(part, Title) or (isinstance(part, Heading) and part.level <= 1):
            return part.text
    return file_title


def split_document(
    parts: Iterable[Part], name: str, title: str, options: ReadingOptions
) -> Iterator[Passage]:
    """Stream the passages ``name#0``, ``name#1``, ... of a document."""
    for number, (headings, metadata, text) in enumerate(_split_sections(parts, options)):
        path = [title, *(headings[1:] if headings[:1] == [title] else headings)]
        yield Passage(f"{name}#{number}", ": ".join(path), text, metadata=metadata)


def split_record(passage: Passage, options: ReadingOptions, *, always: bool = False) -> Iterator[Passage]:
    """A passage of a table as it is, or, with ``passage_words`` or ``always``, in parts.

    The parts of a passage with the id ``x`` are ``x#0``, ``x#1``, ...; those of one without an id have none.
    """
    if not always and options.passage_words is None:
        yield passage
        return
    splitter = _Splitter(options)
    texts = list(splitter.add_words(passage.text.split()))
    texts += splitter.rest()
    if len(texts) <= 1:
        yield passage
        return
    for number, text in enumerate(texts):
        id = passage.id if passage.numbered else f"{passage.id}#{number}"
        yield replace(passage, id=id, text=text)


def _split_sections(
    parts: Iterable[Part], options: ReadingOptions
) -> Iterator[tuple[list[str], dict[str, str], str]]:
    """The headings above each passage, its metadata, and its text."""
    splitter = _Splitter(options)
    above: list[Heading] = []
    metadata: dict[str, str] = {}
    bare = False  # whether nothing has come yet below the last heading

    def headings() -> list[str]:
        return [heading.text for heading in above]

    for part in parts:
        texts: Iterable[str] = ()
        match part:
            case Heading():
                texts = splitter.rest()
                if bare and part.level <= above[-1].level:
                    texts = [above[-1].text]  # the heading is all there is
            case Page():
                texts = splitter.rest()
            case Text():
                words = part.text.split()
                bare = bare and not words
                texts = splitter.add_words(words)
            case Block():
                bare = bare and not part.text.strip()
                texts = splitter.add_block(part.text)
        for text in texts:
            yield headings(), metadata, text
        match part:
            case Heading():
                above = [heading for heading in above if heading.level < part.level]
                above.append(part)
                bare = True
            case Fields():
                metadata = {**metadata, **part.values}
            case Page(number) if number is not None:
                metadata = {**metadata, "page": str(number)}
    for text in [above[-1].text] if bare else splitter.rest():
        yield headings(), metadata, text


@dataclass(slots=True)
class _Splitter:
    """Gathers words and blocks, and gives the text of a passage when it is full and more comes."""

    options: ReadingOptions
    _pieces: list[list[str] | str] = field(default_factory=list)  # running words, or a block
    _count: int = 0  # words
    _characters: int = 0
    _fresh: bool = False  # whether there is more than what the passage before ended with

    def add_words(self, words: list[str]) -> Iterator[str]:
        """Add running words; yield the passages that are full."""
        size, place = self.options.words, 0
        while place < len(words):
            if self._count >= size or self._characters >= _LONGEST_PASSAGE:
                yield self._end_passage()
            taken = words[place : place + max(1, size - self._count)]
            last = self._pieces[-1] if self._pieces else ""
            if isinstance(last, list):
                last += taken
            else:
                self._pieces.append(taken)
            self._added(len(taken), sum(map(len, taken)))
            place += len(taken)

    def add_block(self, text: str) -> Iterator[str]:
        """Add a code block or a table, in a passage that it fits into or of its own."""
        size = self.options.words
        if len(text.split()) > _LARGEST_BLOCK * size:
            for line in text.splitlines():
                yield from (
                    self._add_whole(line) if len(line.split()) <= size else self.add_words(line.split())
                )
        else:
            yield from self._add_whole(text)

    def rest(self) -> list[str]:
        """The passage that is not full, if there is one; the next begins without an overlap."""
        texts = [self._end_passage()] if self._fresh else []
        self._restart([])
        return texts

    def _add_whole(self, text: str) -> Iterator[str]:
        count = len(text.split())
        if not count:
            return
        if self._count + count > self.options.words or self._characters >= _LONGEST_PASSAGE:
            if self._fresh:
                yield self._end_passage()
            if self._count + count > self.options.words:
                self._restart([])
        self._pieces.append(text)
        self._added(count, len(text))

    def _added(self, words: int, characters: int) -> None:
        self._count += words
        self._characters += characters
        self._fresh = True

    def _end_passage(self) -> str:
        last = self._pieces[-1]
        text = "\n".join(piece if isinstance(piece, str) else " ".join(piece) for piece in self._pieces)
        overlap = self.options.overlap
        self._restart(last[-overlap:] if overlap and isinstance(last, list) else [])
        return text

    def _restart(self, words: list[str]) -> None:
        self._pieces = [words] if words else []
        self._count, self._characters = len(words), sum(map(len, words))
        self._fresh = False
