"""How long what the engine holds lives: in one process, until it is closed, until the interpreter ends.

:class:`OneProcess` refuses forks, :class:`Resource` refuses calls after ``close`` and lets running
ones finish, :func:`awaited_at_exit` makes the end of the interpreter wait for native code.
"""

import atexit
import ctypes
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

from ragengine.errors import ClosedError, ProcessError

Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST_WAIT_SECONDS = 10.0
"""For calls that are still inside a library, or in a callback, when the interpreter ends."""

_inside: list[int] = []  # the thread of each call
_ending_thread: int | None = None
_leaked_in_forks: weakref.WeakSet[Any] = weakref.WeakSet()
_forked_thread: int | None = None


class OneProcess:
    """Base of what only the process that loaded it can use."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def _in_fork(self) -> bool:
        return os.getpid() != self._process

    def _check_process(self) -> None:
        """Raise :class:`ProcessError` in a fork; to be asked before any lock is taken."""
        if self._in_fork:
            raise ProcessError(
                f"This {type(self).__name__} was loaded in process {self._process} and cannot be used in its "
                f"fork {os.getpid()}; load it in each process, after the fork."
            )

    def __reduce__(self) -> NoReturn:
        raise ProcessError(
            f"A {type(self).__name__} cannot be pickled or copied, nor be sent to another process; send the "
            "paths of its folders and load it there."
        )


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


def while_open(method: Function) -> Function:
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

    return cast(Function, call)


def awaited_at_exit(function: Function) -> Function:
    """A function that runs native code, which the interpreter's end waits for."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()
        _inside.append(thread)
        try:
            check_interpreter()
            return function(*args, **kwargs)
        finally:
            _inside.remove(thread)

    return cast(Function, call)


def check_interpreter() -> None:
    """End this thread, as `sys.exit` does, where the interpreter ends in another one."""
    if _ending_thread is not None and _ending_thread != threading.get_ident():
        raise SystemExit


def _await_others() -> None:
    global _ending_thread
    _ending_thread = threading.get_ident()
    latest = time.monotonic() + LONGEST_WAIT_SECONDS
    while any(thread != _ending_thread for thread in list(_inside)) and time.monotonic() < latest:
        time.sleep(0.001)


def leak_in_forks(owner: Any) -> None:
    """Let ``owner``, while it lives, never be destroyed in a fork: its destructor could wait there for ever.

    A fork gives back its memory when it ends, and most of it is shared with the parent until then.
    """
    _leaked_in_forks.add(owner)


def lost_openmp_threads() -> bool:
    """Whether this thread went through a fork, so that the OpenMP threads it had are gone.

    OpenMP would wait for them; where one thread is enough it does not.  Threads started since have their own.
    """
    return _forked_thread == threading.get_ident()


def _after_fork() -> None:
    """Only this thread is in the fork: forget the calls of others, free no native memory."""
    global _forked_thread
    _forked_thread = threading.get_ident()
    _inside[:] = [thread for thread in _inside if thread == _forked_thread]
    for owner in list(_leaked_in_forks):
        # Not a list of them: the interpreter empties modules when it ends, and would destroy them then.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


atexit.register(_await_others)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
