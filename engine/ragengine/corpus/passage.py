"""A passage, and how one is made of a record that somebody else wrote."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ragengine.corpus.metadata import check_unicode, read_metadata
from ragengine.corpus.options import ReadingOptions
from ragengine.errors import PassagesError
from ragengine.messages import short_repr

_SHOWN: Final = 12
_REMEDY: Final = "name them with --id-field, --title-field and --text-field"


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


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields of a record are the id, the title and the text; None where it has no such field."""

    id: str | None
    title: str | None
    text: str

    @classmethod
    def among(cls, names: Iterable[str], options: ReadingOptions) -> "Columns":
        """The columns of a table with the columns ``names``, all of which are known beforehand.

        Raises :class:`ValueError` that ends a sentence about the table: what it lacks, and the remedy.
        """
        there = [name for name in names if name]  # columns without a name are left out
        seen: set[str] = set()
        for name in there:
            if name in seen:
                raise ValueError(f"several columns {short_repr(name)}; give each column a name of its own")
            seen.add(name)
        chosen = (options.id_field, options.title_field, options.text_field or "text")
        if missing := [name for name in chosen if name is not None and name not in seen]:
            raise ValueError(
                f"no column {' and no column '.join(map(short_repr, missing))}; its columns are "
                f"{shown_names(there)}; {_REMEDY}"
            )
        return cls.of(there, options)

    @classmethod
    def of(cls, names: Iterable[str], options: ReadingOptions) -> "Columns":
        """The columns of one record with the fields ``names``, where others may have more or fewer."""
        there = set(names)
        title = options.title_field or "title"
        found = next((name for name in ("id", "_id") if name in there), None)  # _id is BEIR's
        return cls(options.id_field or found, title if title in there else None, options.text_field or "text")

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that there are, each once."""
        return tuple(dict.fromkeys(name for name in (self.id, self.title, self.text) if name is not None))

    def passage(self, record: Mapping[str, object], where: str) -> Passage:
        """Make a passage of a record; ``where`` begins the error message.

        A whole number is an id as its decimal text, and a title that is missing is empty.  Other fields
        become metadata.
        """
        title = None if self.title is None else record.get(self.title)
        id = "" if self.id is None else record.get(self.id)
        if isinstance(id, int) and not isinstance(id, bool):
            id = str(id)
        return Passage(
            _checked(record, self.id or "id", id, where),
            "" if title is None else _checked(record, self.title or "title", title, where),
            _checked(record, self.text, record.get(self.text), where),
            numbered=self.id is None,
            metadata=read_metadata(record, where, self.names),
        )


def checked_passage(
    record: Mapping[str, object], where: str, options: ReadingOptions | None = None
) -> Passage:
    """Make a passage of one record, such as a line of JSON; ``where`` begins the error message."""
    return Columns.of(record, options or ReadingOptions()).passage(record, where)


def _checked(record: Mapping[str, object], name: str, value: object, where: str) -> str:
    """``value``, which must be a text that UTF-8 can hold."""
    if not isinstance(value, str):
        if name not in record:
            raise PassagesError(
                f"{where}: there is no {short_repr(name)}, only {shown_names(record)}; "
                f"write it, or {_REMEDY}."
            )
        raise PassagesError(
            f"{where}: {short_repr(name)} must be a string, found {type(value).__name__}; "
            "write it as a string."
        )
    check_unicode(value, short_repr(name), where)
    return value


def shown_names(names: Iterable[object]) -> str:
    """The first names of columns or fields, as a message lists them."""
    there = [short_repr(name) for name in names]
    if not there:
        return "none"
    return ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
