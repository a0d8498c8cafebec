"""End a long measurement early: Ctrl-C and SIGTERM do the same, and samples are kept."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that was ended by Ctrl-C, as shells give it."""


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM raises ``KeyboardInterrupt``, too.  For the main thread alone."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
