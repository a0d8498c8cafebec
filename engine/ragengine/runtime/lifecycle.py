"""The life of loaded objects: one process, until ``close``, at most until the interpreter ends.

An engine holds native sessions, threads and memory maps, so three events need care:

* a **fork**: :class:`OneProcess` refuses calls there, :func:`leak_in_forks` prevents destructors that hang.
* **close**: :class:`Resource` refuses new calls and releases what it holds after the last running one.
* the **end of the interpreter**: it waits for functions marked with :func:`awaited_at_exit`, since Python
  stops threads that return from native code by then, and some libraries abort the process over it.
"""

import atexit
import contextlib
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


class _Call:
    """A call that runs in ``thread``, which is None as soon as it has ended."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()


class _RunningCalls:
    """The calls that run now.

    Ctrl-C may come between any two steps, also within this book-keeping.  So only the frame of a call holds
    its :class:`_Call`: one that could not be taken off the list is gone with its frame.
    """

    def __init__(self) -> None:
        self._entries: list[weakref.ref[_Call]] = []

    def begin(self, call: _Call) -> None:
        self._entries.append(weakref.ref(call))

    def end(self, call: _Call) -> None:
        """End a call that has begun, or was about to."""
        call.thread = None
        with contextlib.suppress(ValueError):  # Ctrl-C came before it was entered
            self._entries.remove(weakref.ref(call))

    def keep(self, thread: int | None) -> None:
        """Forget the calls of all other threads."""
        self._entries[:] = [entry for entry in self._entries if (c := entry()) and c.thread == thread]

    def threads(self) -> list[int]:
        """The thread of each call."""
        calls = [entry() for entry in list(self._entries)]
        return [call.thread for call in calls if call is not None and call.thread is not None]


# The end of the interpreter

LONGEST_WAIT_SECONDS = 10.0
"""How long the end of the interpreter waits for native code, or a callback within it, to return."""

_native_calls = _RunningCalls()
_ending_thread: int | None = None  # the thread that ends the interpreter


def awaited_at_exit(function: Function) -> Function:
    """Mark a function that runs native code: the end of the interpreter waits until it returns."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        running = _Call()
        try:
            _native_calls.begin(running)
            check_interpreter()
            return function(*args, **kwargs)
        finally:
            _native_calls.end(running)

    return cast(Function, call)


def check_interpreter() -> None:
    """End this thread, as `sys.exit` does, if another thread is ending the interpreter."""
    if _ending_thread is not None and _ending_thread != threading.get_ident():
        raise SystemExit


def _await_native_calls() -> None:
    global _ending_thread
    _ending_thread = threading.get_ident()
    latest = time.monotonic() + LONGEST_WAIT_SECONDS
    while any(thread != _ending_thread for thread in _native_calls.threads()) and time.monotonic() < latest:
        time.sleep(0.001)


atexit.register(_await_native_calls)


# Forks

_leaked_in_forks: weakref.WeakSet[Any] = weakref.WeakSet()
_forked_thread: int | None = None  # the thread that came through the latest fork


class OneProcess:
    """Base class of objects that only the process which loaded them can use."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def _in_fork(self) -> bool:
        return os.getpid() != self._process

    def _check_process(self) -> None:
        """Raise :class:`ProcessError` in a fork.

        Call it before taking a lock: a thread that the fork does not have may hold it for ever.
        """
        if self._in_fork:
            raise ProcessError(
                f"This {type(self).__name__} was loaded in process {self._process} and cannot be used in its "
                f"fork {os.getpid()}; load it in each process, after the fork."
            )

    def __reduce__(self) -> NoReturn:
        raise ProcessError(
            f"This {type(self).__name__} cannot be pickled or copied, nor be sent to another process; send "
            "the paths of its folders and load it there."
        )


def leak_in_forks(owner: Any) -> None:
    """Never destroy ``owner`` in a fork of this process, where its destructor could wait for ever.

    The fork gives the memory back when it ends; until then it shares most of it with its parent.
    """
    _leaked_in_forks.add(owner)


def lost_openmp_threads() -> bool:
    """Whether this thread came through a fork, so that its team of OpenMP threads is gone.

    OpenMP would wait for that team for ever, unless one thread is enough.  A thread that was started after
    the fork gets a team of its own.
    """
    return _forked_thread == threading.get_ident()


def _after_fork() -> None:
    """In the child, only this thread exists: forget the calls of the others, and free no native memory."""
    global _forked_thread
    _forked_thread = threading.get_ident()
    _native_calls.keep(_forked_thread)
    for owner in list(_leaked_in_forks):
        # A list of owners would not do: the interpreter empties modules at its end, and would destroy them.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Closing


class Resource(OneProcess):
    """Base class of objects that are loaded, called from any thread, and closed.

    The methods marked with :func:`while_open` are its calls.  After :meth:`close`, when the last of them has
    returned, :meth:`_release` runs once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = _RunningCalls()
        self._closed = self._released = False
        # Reentrant: a signal handler may close the object that the interrupted thread is about to call.
        self._lock = threading.RLock()

    def close(self) -> None:
        """Refuse further calls; once the running ones have returned, memory and files are released.

        It may be called repeatedly, by several threads, and from within a call.  In a fork of the process
        that loaded the object, it does nothing.
        """
        if self._in_fork:
            return
        self._closed = True
        self._release_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        """Release what the object holds: no call is running, and none will.

        It may run again, from the start, where Ctrl-C ended it.
        """

    def _drop(self, *names: str) -> None:
        """Delete attributes, those that are there."""
        for name in names:
            self.__dict__.pop(name, None)

    def _check_open(self) -> None:
        """Raise :class:`ProcessError` in a fork and :class:`ClosedError` after :meth:`close`."""
        self._check_process()
        if self._closed:
            raise ClosedError(f"This {type(self).__name__} was closed; load it again.")

    def _begin_call(self, call: _Call) -> None:
        self._check_process()
        with self._lock:
            if call.thread not in self._calls.threads():  # a call within a call may still begin after `close`
                self._check_open()
            self._calls.begin(call)

    def _end_call(self, call: _Call) -> None:
        self._calls.end(call)
        if self._closed:
            self._release_unused()

    def _release_unused(self) -> None:
        """Release a closed object that no call uses; once, unless Ctrl-C comes meanwhile."""
        with self._lock:
            if not self._released and not self._calls.threads():
                self._release()
                self._released = True


def while_open(method: Function) -> Function:
    """Mark a method of a :class:`Resource` as a call: refused after ``close``, which waits until it returns.

    An iterator that it returns outlives the call, and has to hold what it needs itself.
    """

    @awaited_at_exit
    @functools.wraps(method)
    def call(self: Resource, /, *args: Any, **kwargs: Any) -> Any:
        running = _Call()
        try:
            self._begin_call(running)
            return method(self, *args, **kwargs)
        finally:
            self._end_call(running)

    return cast(Function, call)
