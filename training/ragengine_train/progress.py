"""What a run says while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class TrainProgress:
    """One report of a run that goes on.

    Attributes:
        stage: data, encoders, generator, index, joint or checkpoint.
        message: one line of text, which `ragengine train` prints.
        step: steps of the optimizer that are done, None where the report is about something else.
        total: steps of the stage, None where ``step`` is.
        loss: the mean loss since the report before, None where ``step`` is.
    """

    stage: str
    message: str
    step: int | None = None
    total: int | None = None
    loss: float | None = None


Progress: TypeAlias = Callable[[TrainProgress], None]


def silent(report: TrainProgress) -> None:
    """A :data:`Progress` that nobody sees."""
