"""While a CUDA graph is captured, no other thread of the process may use CUDA.

onnxruntime captures with ``cudaStreamCaptureModeGlobal``: a copy, an allocation or a wait of any thread
meanwhile breaks the capture and fails itself ("operation not permitted when stream is capturing").
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CaptureLock:
    """Shared by whatever uses CUDA, exclusive to a capture.

    A thread that holds it may ask for it again.  Who waits for a capture comes before those who ask to
    share after it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._captures = 0  # running or waiting
        self._capturing = False
        self._held = threading.local()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use CUDA beside others that do."""
        if self._has():
            yield
            return
        with self._holding():
            with self._changed:
                self._changed.wait_for(lambda: not self._captures)
                self._sharing += 1
            try:
                yield
            finally:
                with self._changed:
                    self._sharing -= 1
                    self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Capture: begins when nothing else uses CUDA.  Not for a thread that shares it already."""
        with self._holding():
            with self._changed:
                self._captures += 1
            try:
                with self._changed:
                    self._changed.wait_for(lambda: not self._sharing and not self._capturing)
                    self._capturing = True
                try:
                    yield
                finally:
                    self._capturing = False
            finally:
                with self._changed:
                    self._captures -= 1
                    self._changed.notify_all()

    def _has(self) -> bool:
        return getattr(self._held, "any", False)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Before the lock is taken: a destructor may run in this very thread while it waits."""
        self._held.any = True
        try:
            yield
        finally:
            self._held.any = False


CUDA_WORK = CaptureLock()
"""Of this process."""


def _anew() -> None:
    """A forked child has none of the threads that hold the lock."""
    CUDA_WORK.__init__()  # type: ignore[misc]  # the one object that all modules refer to


os.register_at_fork(after_in_child=_anew)
