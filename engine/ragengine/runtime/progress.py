"""How a long job reports its progress."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

Report: TypeAlias = Callable[[int, int | None], None]
"""``report(done, total)`` of one phase; ``total`` is None while it is not known."""
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""``progress(phase, done, total)``.

The phases of an index build in their order, and what each counts: ``passages`` (passages), ``vectors``
(vectors), ``train`` (steps), ``add`` (vectors), ``exact`` (vectors), ``tune`` (settings).
"""


def silent(done: int, total: int | None) -> None:
    """A :data:`Report` that nobody reads."""


def phase_report(progress: Progress | None, phase: str) -> Report:
    """The :data:`Report` of one phase of ``progress``; :func:`silent` where that is None."""
    return silent if progress is None else partial(progress, phase)
