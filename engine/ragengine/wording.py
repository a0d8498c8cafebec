"""Words of others inside our messages."""

from typing import Final

_LONGEST: Final = 400


def one_line(reason: object) -> str:
    """What another library says, in one line that may be printed: it can quote names from a forged file.

    Line breaks and what a terminal would obey become spaces, and of a long text its beginning is kept.
    """
    text = "".join(character if character.isprintable() else " " for character in str(reason))
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
