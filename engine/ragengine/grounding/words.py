"""The words of a text with their places, compared without case and accents."""

import re
import unicodedata
from typing import NamedTuple

# Scripts that put no space between words: every character is a word of its own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = "\u0300-\u036f"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]+|[{_MARKS}]+)+")
_FOLDED_ASCII_WORD = re.compile("[a-z0-9]+")  # what _WORD finds in such a text, several times as fast


class Word(NamedTuple):
    """A word as it is compared, and where it stands: ``text[start:end]``."""

    folded: str
    start: int
    end: int


def fold(text: str) -> str:
    """A text without what readers do not tell apart: case, accents, and forms of one character."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def words_of(text: str) -> list[Word]:
    """The words of a text in their order; in scripts without spaces, its characters."""
    if text.isascii():
        return [Word(m.group(), *m.span()) for m in _FOLDED_ASCII_WORD.finditer(fold(text))]
    found = (Word(fold(m.group()), *m.span()) for m in _WORD.finditer(text))
    return [word for word in found if word.folded]


def folded_words(text: str) -> list[str]:
    """The words of a text as they are compared."""
    if text.isascii():
        return _FOLDED_ASCII_WORD.findall(fold(text))
    return [word.folded for word in words_of(text)]


def distinct_words(text: str) -> set[str]:
    """The different words of a text as they are compared, several times as fast as their list."""
    if text.isascii():
        return set(folded_words(text))
    parts = set(text.split())  # no word goes on beyond white space
    plain = {part for part in parts if part.isascii()}
    others = set(_WORD.findall(" ".join(parts - plain)))
    return {*folded_words(" ".join(plain)), *map(fold, others)} - {""}
