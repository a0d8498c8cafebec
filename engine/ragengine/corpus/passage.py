"""A passage, how one is checked, and the lines of the files that passages come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ragengine.errors import PassagesError
from ragengine.storage import foreign_files


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage z: what the retriever finds and the generator reads.

    ``numbered`` says that ``id`` was not given: it is a number that may still be replaced by another one.
    """

    id: str
    title: str
    text: str
    numbered: bool = field(default=False, compare=False, repr=False)


def checked_passage(record: dict[str, object], where: str, row: int = 0) -> Passage:
    """Make a passage of a record that must have three strings.

    Args:
        record: its ``id``, ``title`` and ``text``.
        where: begins the error message.
        row: the number that is the id where the record has none.
    """
    numbered = "id" not in record
    record = {"id": str(row), **record}
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
    return Passage(values[0], values[1], values[2], numbered)


def utf8_lines(path: Path, within: Path | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, as :func:`ragengine.storage.foreign_files.utf8_lines` reads them."""
    return foreign_files.utf8_lines(path, PassagesError, within)
