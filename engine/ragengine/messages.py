"""What ragengine says: its logger, and foreign texts and values as they appear in its messages."""

import logging
import reprlib
from typing import Any, Final

log = logging.getLogger("ragengine")
"""Where ragengine tells what it chose by itself, such as a device."""

_LONGEST: Final = 400

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def one_line(reason: object) -> str:
    """Another library's message in one line that is safe to print: it may quote names from a forged file.

    Line breaks and control characters become spaces, and a long text is cut.
    """
    text = "".join(character if character.isprintable() else " " for character in str(reason))
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def short_repr(value: Any) -> str:
    """A user's value as Python writes it; a long or deep one is cut."""
    return _SHORT.repr(value)
