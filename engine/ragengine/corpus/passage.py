"""A passage, how one is checked, and the lines of the files that passages come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragengine.errors import PassagesError


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage z: what the retriever finds and the generator reads."""

    id: str
    title: str
    text: str


def checked_passage(record: dict[str, object], where: str) -> Passage:
    """Make a passage of a record that must have three strings; ``where`` begins the error message."""
    values = []
    for name in ("id", "title", "text"):
        value = record.get(name)
        if not isinstance(value, str):
            found = type(value).__name__ if name in record else "nothing"
            raise PassagesError(f"{where}: {name!r} must be a string, found {found}; write it as a string.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as reason:
            raise PassagesError(
                f"{where}: {name!r} has half a surrogate pair ({value[reason.start]!a}) at character "
                f"{reason.start}, which no UTF-8 text can hold; remove it or write the whole pair."
            ) from reason
        values.append(value)
    return Passage(*values)


def utf8_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; an error of the encoding names its line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as reason:
                    raise PassagesError(
                        f"{path}, line {number}: byte {line[reason.start]:#04x} at position {reason.start} "
                        "is not UTF-8; convert the file to UTF-8."
                    ) from reason
    except OSError as reason:
        raise PassagesError(f"{path} cannot be read: {reason.strerror or reason}.") from reason
