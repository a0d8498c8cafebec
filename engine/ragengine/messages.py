"""Words and values of others inside our messages."""

import reprlib
from typing import Any, Final

_LONGEST: Final = 400

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def one_line(reason: object) -> str:
    """What another library says, in one line that may be printed: it can quote names from a forged file.

    Line breaks and what a terminal would obey become spaces, and of a long text its beginning is kept.
    """
    text = "".join(character if character.isprintable() else " " for character in str(reason))
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def short_repr(value: Any) -> str:
    """A user's value as it is written in Python; of a long or deep one its beginning."""
    return _SHORT.repr(value)
