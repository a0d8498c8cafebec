"""Passages that a program hands over instead of a file."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage, checked_passage
from ragengine.corpus.splitting import split_record
from ragengine.errors import PassagesError
from ragengine.messages import short_repr


@dataclass(frozen=True)
class GivenPassages:
    """Passages of an iterable, which is read once: dicts as in JSONL, or objects such as documents."""

    passages: Iterable[Any]
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the passages; raises :class:`PassagesError` naming the number of one, from 0."""
        for number, item in enumerate(self.passages):
            where = f"passage {number} of those given"
            yield from split_record(checked_passage(_record(item, where), where, self.options), self.options)

    def count(self) -> int:
        """Their number; 0 where only reading them tells."""
        return len(self.passages) if isinstance(self.passages, Sized) else 0


def _record(item: Any, where: str) -> Mapping[str, object]:
    if isinstance(item, Mapping):
        return item
    if isinstance(getattr(item, "text", None), str) and not isinstance(item, type):
        record = {name: getattr(item, name) for name in ("title", "text") if hasattr(item, name)}
        return record | ({"id": item.id} if getattr(item, "id", None) else {})  # a document without id has ""
    raise PassagesError(
        f"{where} is {short_repr(item)}; give dicts with text, title and id, documents, or a list of paths."
    )
