"""The interpreter's end: daemon threads that are inside a library then would crash the process.

A thread that comes back from C++ or Rust to an interpreter that has ended is ended where it stands, and what
the library has on its stack turns that into an abort (CPython before 3.14).  So what runs is waited for, and
no thread begins anew.
"""

import atexit
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST_WAIT_SECONDS = 10.0
"""For calls that are still inside a library, or in a callback, when the interpreter ends."""

_inside: list[int] = []  # the thread of each call
_ending_thread: int | None = None


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


def _after_fork() -> None:
    """The other threads are not in the fork."""
    _inside[:] = [thread for thread in _inside if thread == threading.get_ident()]


atexit.register(_await_others)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
