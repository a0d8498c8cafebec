"""What ragengine says: its logger, and foreign texts and values as they appear in its messages."""

import logging
import reprlib
import unicodedata
from typing import Any, Final

_LONGEST: Final = 400
_JOINERS: Final = "\u200c\u200d"  # Persian words, Indic letters and emoji are written with them


class _Short(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        try:
            return super().repr_int(value, level)
        except ValueError:  # Python writes no more than 4300 digits
            return f"a number of {value.bit_length()} bits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(text: str) -> str:
    """A foreign text in one line, with whatever a terminal might obey written out: ``\\x1b``, ``\\u202e``.

    That is every character that is not printable: controls, line breaks, overrides of the direction of
    writing, halves of surrogate pairs, what is invisible.  Spaces of any width and joiners of letters stay.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def shown_lines(text: str) -> str:
    """A text of several lines, each :func:`shown`."""
    return "\n".join(map(shown, text.split("\n")))


def one_line(reason: object) -> str:
    """Another library's message in one line that is safe to print: it may quote names from a forged file.

    White space becomes single spaces, other control characters are :func:`shown`, and a long text is cut.
    """
    line = shown(" ".join(str(reason).split())).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def short_repr(value: Any) -> str:
    """A user's value as Python writes it; a long or deep one is cut."""
    return _SHORT.repr(value)


def _visible(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return ascii(character)[1:-1]


class _Shown(logging.Filter):
    """Messages in one line: they quote names and reasons of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        return True


log = logging.getLogger("ragengine")
"""Where ragengine tells what it chose by itself, such as a device."""
log.addFilter(_Shown())
