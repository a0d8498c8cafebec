"""How a long job tells where it is."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

Report: TypeAlias = Callable[[int, int | None], None]
"""``report(done, total)`` of one phase; ``total`` is None where it is not known yet."""
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""``progress(phase, done, total)``, with a phase of :data:`PHASES`."""

PHASES = {
    "passages": "passages",
    "vectors": "vectors",
    "train": "steps",
    "add": "vectors",
    "exact": "vectors",
    "tune": "settings",
}
"""The phases of a build in their order, and what each counts."""


def silent(done: int, total: int | None) -> None:
    """A :data:`Report` to nobody."""


def phase_report(progress: Progress | None, phase: str) -> Report:
    """The :data:`Report` of one phase of ``progress``."""
    return silent if progress is None else partial(progress, phase)
