"""Ending a call early: at a deadline, or when another thread cancels it."""

import math
import numbers
import time
from typing import Any, Protocol

from ragengine.errors import CancelledError, DeadlineError, InputError
from ragengine.messages import short_repr
from ragengine.runtime.lifecycle import check_interpreter


class CancelSignal(Protocol):
    """What ``cancel`` has to be: a :class:`threading.Event`, or anything else that can say whether to end."""

    def is_set(self) -> bool:
        """Whether the call is to end."""
        ...


class Stop:
    """What a call checks between its steps.

    Given to several calls as their ``deadline``, one object ends them together.
    """

    def __init__(self, deadline: float | None = None, cancel: CancelSignal | None = None) -> None:
        """Start the clock.

        Args:
            deadline: seconds from now; None for no limit.
            cancel: an event that another thread sets to end the calls.

        Raises:
            InputError: ``deadline`` is no finite number above 0, or ``cancel`` is no event.
        """
        if deadline is not None and not (is_finite_number(deadline) and deadline > 0):
            raise InputError(
                f"deadline is {short_repr(deadline)}; it must be a number of seconds above 0, or None."
            )
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise InputError(f"cancel is {type(cancel).__name__}; it must be a threading.Event, or None.")
        self._deadline = None if deadline is None else float(deadline)  # a Fraction prints otherwise
        self._end = None if self._deadline is None else time.monotonic() + self._deadline
        self._cancel = cancel

    @classmethod
    def of(cls, deadline: "float | Stop | None", cancel: CancelSignal | None) -> "Stop":
        """The :class:`Stop` that the arguments ``deadline`` and ``cancel`` of a call stand for.

        Raises:
            InputError: ``deadline`` is neither seconds nor a :class:`Stop`, or is a :class:`Stop` and
                ``cancel`` is given besides.
        """
        if not isinstance(deadline, Stop):
            return cls(deadline, cancel) if deadline is not None or cancel is not None else NEVER
        if cancel is not None:
            raise InputError(
                "deadline is a Stop and cancel is given besides; give Stop(seconds, cancel) alone."
            )
        return deadline

    def check(self, done: str) -> None:
        """End the call if it is time.

        Args:
            done: how far it has come, the end of the error's sentence: ``"after 4 tokens"``.

        Raises:
            CancelledError: the event is set.
            DeadlineError: the time is over.
        """
        check_interpreter()
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(f"The call was cancelled {done}.")
        if self._end is not None and time.monotonic() > self._end:
            raise DeadlineError(
                f"The deadline of {self._deadline:g} s passed {done}; allow more time, or give it less to do."
            )


def is_finite_number(value: Any) -> bool:
    """Whether it is a number of any kind that a float can hold, and no bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int larger than any float
        return False


NEVER = Stop()
