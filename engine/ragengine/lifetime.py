"""Used from many threads until it is closed: running calls finish, new ones are refused."""

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from ragengine.ending import awaited_at_exit
from ragengine.errors import ClosedError
from ragengine.process import OneProcess

Method = TypeVar("Method", bound=Callable[..., Any])


class Resource(OneProcess):
    """Base of what is loaded, called from any thread, and closed.

    Its calls are the methods marked with :func:`while_open`; after :meth:`close` and the last of them
    :meth:`_release` runs, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: list[int] = []  # the thread of each call
        self._closed = self._released = False
        # Reentrant, since a signal handler may close what the interrupted thread is about to call.
        self._count = threading.RLock()

    def close(self) -> None:
        """Take no more calls; running ones finish, then memory and files are given back.

        May be called again, by several threads, and from within a call.  In a fork of the process that
        loaded it, it does nothing.
        """
        if self._in_fork:
            return
        with self._count:
            self._closed = True
            last = self._is_last()
        if last:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        """Give back what is held; nothing runs any more, and nothing will."""

    def _check_open(self) -> None:
        """Raise :class:`ProcessError` in a fork and :class:`ClosedError` after :meth:`close`."""
        self._check_process()
        if self._closed:
            raise ClosedError(f"This {type(self).__name__} was closed; load it again.")

    def _begin(self) -> None:
        self._check_process()
        thread = threading.get_ident()
        with self._count:
            if thread not in self._running:  # a call within a call belongs to it
                self._check_open()
            self._running.append(thread)

    def _end(self) -> None:
        with self._count:
            self._running.remove(threading.get_ident())
            last = self._is_last()
        if last:
            self._release()

    def _is_last(self) -> bool:
        """Whether it is time to release; true once."""
        last = self._closed and not self._running and not self._released
        self._released |= last
        return last


def while_open(method: Method) -> Method:
    """A method of a :class:`Resource` that is refused after ``close``, and that ``close`` waits for.

    What it returns may outlive the call: an iterator has to hold what it needs.
    """

    @awaited_at_exit
    @functools.wraps(method)
    def call(self: Resource, /, *args: Any, **kwargs: Any) -> Any:
        self._begin()
        try:
            return method(self, *args, **kwargs)
        finally:
            self._end()

    return cast(Method, call)
