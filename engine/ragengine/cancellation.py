"""When a call has to end early: a deadline, or somebody's wish."""

import threading
import time

from ragengine.errors import CancelledError, DeadlineError


class Stop:
    """What a call asks between its steps.  ``deadline`` is in seconds from now."""

    def __init__(self, deadline: float | None = None, cancel: threading.Event | None = None) -> None:
        self._end = None if deadline is None else time.monotonic() + deadline
        self._deadline = deadline
        self._cancel = cancel

    def check(self, done: str) -> None:
        """Raise :class:`DeadlineError` or :class:`CancelledError` if it is time; ``done`` says how far."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(f"The call was cancelled {done}.")
        if self._end is not None and time.monotonic() > self._end:
            raise DeadlineError(f"The deadline of {self._deadline:g} s passed {done}; allow more time.")


NEVER = Stop()
