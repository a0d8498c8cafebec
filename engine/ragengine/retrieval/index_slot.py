"""One index for many threads, replaced without a pause while questions run."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ragengine.errors import ClosedError
from ragengine.retrieval.custom import AnyIndex


@dataclass
class _SharedIndex:
    """An index, how many questions use it now, and whether it closes after the last of them."""

    index: AnyIndex
    users: int = 0
    retired: bool = False


class IndexSlot:
    """Holds the index that is searched now.  Safe to use from many threads.

    A question uses one index from its beginning to its end, whatever takes its place meanwhile; a replaced
    index closes after the last question that uses it.  The lock is held to count, never while searching.
    """

    def __init__(self, index: AnyIndex) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close the engine
        self._current = _SharedIndex(index)

    @property
    def index(self) -> AnyIndex:
        """The index that is searched now, or was last; to search it, :meth:`borrow` it."""
        return self._current.index

    @contextlib.contextmanager
    def borrow(self) -> Iterator[AnyIndex]:
        """The index for one question: it stays open inside the block.

        Raises :class:`ClosedError` after :meth:`close`.
        """
        with self._lock:
            self._check_open()
            shared = self._current
            shared.users += 1
        try:
            yield shared.index
        finally:
            with self._lock:
                shared.users -= 1
                last = shared.retired and shared.users == 0
            if last:
                shared.index.close()

    def replace(self, index: AnyIndex) -> None:
        """Let every question from now on use ``index``, which this slot then closes.

        Raises :class:`ClosedError` after :meth:`close`; then ``index`` stays the caller's.
        """
        with self._lock:
            self._check_open()
            idle = self._retire()
            self._current, old = _SharedIndex(index), self._current
        if idle:
            old.index.close()

    def close(self) -> None:
        """Refuse further questions; running ones finish.  May be called again."""
        with self._lock:
            idle = self._retire()
        if idle:
            self._current.index.close()

    def check_open(self) -> None:
        """Raise :class:`ClosedError` after :meth:`close`."""
        with self._lock:
            self._check_open()

    def _check_open(self) -> None:
        if self._current.retired:  # a current index is retired by `close` alone
            raise ClosedError(f"The {self.index.name} was closed; load the engine again.")

    def _retire(self) -> bool:
        """Let no further question use the current index; whether none uses it now."""
        self._current.retired = True
        return self._current.users == 0
