"""One index at a time for many threads: lent to running questions, replaced without a pause."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ragengine.errors import ClosedError
from ragengine.retrieval.index import PassageIndex


@dataclass
class _Lent:
    """An index, the questions that use it now, and whether it closes after the last of them."""

    index: PassageIndex
    borrowers: int = 0
    retired: bool = False


class IndexSlot:
    """Holds the index that is searched now.  Safe to use from many threads.

    A question borrows the index and keeps it to its end, whatever takes its place meanwhile; an index that
    was replaced closes when its last borrower is done.  The lock is held to count, never while searching.
    """

    def __init__(self, index: PassageIndex) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close the engine
        self._current = _Lent(index)

    @property
    def index(self) -> PassageIndex:
        """The index that is searched now, or was last; to search it, :meth:`borrow` it."""
        return self._current.index

    @contextlib.contextmanager
    def borrow(self) -> Iterator[PassageIndex]:
        """The index for one question: it stays open inside the block.

        Raises :class:`ClosedError` after :meth:`close`.
        """
        with self._lock:
            self._check_open()
            lent = self._current
            lent.borrowers += 1
        try:
            yield lent.index
        finally:
            with self._lock:
                lent.borrowers -= 1
                last = lent.retired and lent.borrowers == 0
            if last:
                lent.index.close()

    def replace(self, index: PassageIndex) -> None:
        """Let every question from now on borrow ``index``; it is this slot's to close.

        Raises :class:`ClosedError` after :meth:`close`; then ``index`` stays the caller's.
        """
        with self._lock:
            self._check_open()
            idle = self._retire()
            self._current, old = _Lent(index), self._current
        if idle:
            old.index.close()

    def close(self) -> None:
        """Lend nothing from now on; running questions finish.  May be called again."""
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
            raise ClosedError(f"The index {self.index.path} was closed; load the engine again.")

    def _retire(self) -> bool:
        """Lend the current index to nobody else; whether nobody uses it now."""
        self._current.retired = True
        return self._current.borrowers == 0
