"""What is loaded belongs to one process: neither a fork nor a pickle takes it along (docs/deployment.md).

A fork copies memory and one thread.  onnxruntime's and OpenMP's other threads are not there, and a lock that
one of them held is never released: a graph may wait for ever in a fork, and so does its destructor.
"""

import ctypes
import os
import threading
import weakref
from typing import Any, NoReturn

from ragengine.errors import ProcessError

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
    global _forked_thread
    _forked_thread = threading.get_ident()
    for owner in list(_leaked_in_forks):
        # Not a list of them: the interpreter empties modules when it ends, and would destroy them then.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
