"""A circuit breaker: a shard that does not answer is not asked again with every question."""

import threading
import time
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "half_open"]
LONGEST_REST: Final = 30.0
"""Seconds without a question to a shard that keeps failing, at most."""


@dataclass(frozen=True)
class Health:
    """Whether a shard is asked.

    state     ``closed``: by every question; ``open``: by none until its rest is over; ``half_open``: by one,
              whose outcome decides
    failures  how often in a row it did not answer
    seconds   until it is asked again; 0 where it may be now
    reason    why it did not answer; empty where it did
    """

    state: State = "closed"
    failures: int = 0
    seconds: float = 0.0
    reason: str = ""


class Breaker:
    """A circuit breaker (M. Nygard, Release It!, 2007, section 5.2).  Safe to use from several threads.

    After a failure nothing is asked for ``rest`` seconds, after each further one in a row for twice as long
    as before, at most :data:`LONGEST_REST`.  Then one call is let through; where it succeeds, all are.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._lock = threading.Lock()
        self._turn = 0  # of the state; a call's outcome counts in the one that let it through
        self._failures, self._reason = 0, ""
        self._until, self._trying = 0.0, False

    @property
    def health(self) -> Health:
        """Whether the shard is asked now, and why it is not."""
        with self._lock:
            if not self._failures:
                return Health()
            left = max(0.0, self._until - time.monotonic())
            return Health("open" if left else "half_open", self._failures, left, self._reason)

    def admit(self) -> int | None:
        """Let a call through; its number goes to :meth:`succeeded`, :meth:`failed` or :meth:`ended`."""
        with self._lock:
            if self._failures:
                if self._trying or time.monotonic() < self._until:
                    return None
                self._trying = True
            return self._turn

    def succeeded(self, call: int) -> None:
        """The shard answered."""
        with self._lock:
            if call == self._turn and self._failures:
                self._turn, self._failures, self._reason, self._trying = self._turn + 1, 0, "", False

    def failed(self, call: int, reason: str) -> None:
        """The shard did not answer; of calls that were let through together the first failure counts."""
        with self._lock:
            if call == self._turn:
                rest = min(LONGEST_REST, self._rest * 2.0 ** min(self._failures, 64))
                self._until, self._trying = time.monotonic() + rest, False
                self._turn, self._failures, self._reason = self._turn + 1, self._failures + 1, reason

    def ended(self, call: int) -> None:
        """The call ended without a verdict, as by the deadline of a question: another one may try."""
        with self._lock:
            if call == self._turn:
                self._trying = False
