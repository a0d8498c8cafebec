"""What every format is read to: a question with what is known about it, or the reason why it is dropped."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragengine.errors import PassagesError
from ragengine.messages import short_repr


@dataclass(frozen=True)
class Context:
    """A passage that an entry contains; ``id`` is its name in the passages file of its project."""

    title: str
    text: str
    id: str | None = None


@dataclass(frozen=True)
class Record:
    """One question.

    where        file and line or entry
    answers      the right ones, best first; none where nothing answers the question; None if not known
    positives    passages that answer it, best first
    negatives    passages that resemble them and do not
    titles       titles of the right pages
    passage_ids  right passages of which only the id is known
    """

    where: str
    question: str
    answers: tuple[str, ...] | None
    positives: tuple[Context, ...] = ()
    negatives: tuple[Context, ...] = ()
    titles: tuple[str, ...] = ()
    passage_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dropped:
    """An entry that cannot be used, and why."""

    where: str
    reason: str


Records: TypeAlias = Iterator[Record | Dropped]


def required(entry: dict[str, Any], name: str, where: str, kind: type = str) -> Any:
    """A field of an entry that must have this type.

    Raises:
        PassagesError: it is missing or something else.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise PassagesError(
            f"{where}: {name!r} is {short_repr(value)}, where a {kind.__name__} was expected; is it another "
            "--format?"
        )
    return value


def unique(texts: Iterable[Any], where: str) -> tuple[str, ...]:
    """The texts without white space around them, each once, without empty ones.

    Raises:
        PassagesError: one is no text.
    """
    found = list(texts)
    if wrong := [text for text in found if not isinstance(text, str)]:
        raise PassagesError(f"{where}: found {short_repr(wrong[0])} among texts; write a string.")
    return tuple(dict.fromkeys(text.strip() for text in found if text.strip()))


def record_or_dropped(record: Record, *, unanswered: bool = False) -> Record | Dropped:
    """The record, if it has a question, and answers unless it is known to be ``unanswered``."""
    if not record.question.strip():
        return Dropped(record.where, "no question")
    if record.answers == () and not unanswered:
        return Dropped(record.where, "no answer")
    return record
