"""The search that a thread makes now, as shards see it: when it is to end, and which of them are missing."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from ragengine.runtime.cancellation import NEVER, Stop


@dataclass
class Search:
    """A search of several shards.

    stop     when it is to end
    missing  the shards that did not answer and without which it goes on; None where it may not
    """

    stop: Stop = NEVER
    missing: set[str] | None = field(default=None)


_WHOLE = Search()
_current: ContextVar[Search] = ContextVar("ragengine_search", default=_WHOLE)


def current_search() -> Search:
    """The search of this context; a thread that helps with it has to run in a copy of the context."""
    return _current.get()


@contextlib.contextmanager
def searching(search: Search) -> Iterator[Search]:
    """Make ``search`` the current one inside the block."""
    token = _current.set(search)
    try:
        yield search
    finally:
        _current.reset(token)
