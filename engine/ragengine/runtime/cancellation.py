"""When a call has to end early: a deadline, or somebody's wish."""

import math
import numbers
import threading
import time
from typing import Any

from ragengine.errors import CancelledError, DeadlineError, InputError
from ragengine.messages import short_repr
from ragengine.runtime.lifecycle import check_interpreter


class Stop:
    """What a call asks between its steps, whether it should go on.

    ``deadline`` is in seconds from when this is made; ``cancel`` is set by another thread.  One that is given
    to several calls, as their ``deadline``, ends them together.
    """

    def __init__(self, deadline: float | None = None, cancel: threading.Event | None = None) -> None:
        if deadline is not None and not (_is_number(deadline) and deadline > 0):
            raise InputError(
                f"deadline is {short_repr(deadline)}; it must be a number of seconds above 0, or None."
            )
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise InputError(f"cancel is {type(cancel).__name__}; it must be a threading.Event, or None.")
        self._end = None if deadline is None else time.monotonic() + float(deadline)
        self._deadline = deadline
        self._cancel = cancel

    @classmethod
    def of(cls, deadline: "float | Stop | None", cancel: threading.Event | None) -> "Stop":
        """What the arguments ``deadline`` and ``cancel`` of a call mean.

        Raises :class:`InputError` where they are something else.
        """
        if not isinstance(deadline, Stop):
            return cls(deadline, cancel) if deadline is not None or cancel is not None else NEVER
        if cancel is not None:
            raise InputError("deadline is a Stop and cancel is given, too; give Stop(seconds, cancel) alone.")
        return deadline

    def check(self, done: str) -> None:
        """Raise :class:`DeadlineError` or :class:`CancelledError` if it is time; ``done`` says how far."""
        check_interpreter()
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(f"The call was cancelled {done}.")
        if self._end is not None and time.monotonic() > self._end:
            raise DeadlineError(
                f"The deadline of {self._deadline:g} s passed {done}; allow more time, or ask for less."
            )


def _is_number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int beyond float
        return False


NEVER = Stop()
