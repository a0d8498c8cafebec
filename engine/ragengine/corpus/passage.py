"""A passage, how one is checked, and the lines of the files that passages come from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ragengine.corpus.metadata import PASSAGE_FIELDS, check_unicode, read_metadata
from ragengine.errors import PassagesError
from ragengine.storage import foreign_files


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage z: what the retriever finds and the generator reads.

    ``numbered`` says that ``id`` was not given: it is a number that may still be replaced by another one.
    ``metadata`` is what else is known of it, by field name; it is shown, and passages are filtered by it.
    """

    id: str
    title: str
    text: str
    numbered: bool = field(default=False, compare=False, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


def checked_passage(record: Mapping[str, object], where: str, row: int = 0) -> Passage:
    """Make a passage of a record that must have three strings; its other fields become metadata.

    Args:
        record: its ``id``, ``title`` and ``text``, and what else :func:`read_metadata` takes.
        where: begins the error message.
        row: the number that is the id where the record has none.
    """
    numbered = "id" not in record
    record = {"id": str(row), **record}
    values = []
    for name in PASSAGE_FIELDS:
        value = record.get(name)
        if not isinstance(value, str):
            found = type(value).__name__ if name in record else "nothing"
            raise PassagesError(f"{where}: {name!r} must be a string, found {found}; write it as a string.")
        check_unicode(value, repr(name), where)
        values.append(value)
    id, title, text = values
    return Passage(id, title, text, numbered, read_metadata(record, where))


def utf8_lines(path: Path, within: Path | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, as :func:`ragengine.storage.foreign_files.utf8_lines` reads them."""
    return foreign_files.utf8_lines(path, PassagesError, within)
