"""The thread that talks to the servers of shards, for all threads that search."""

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ragengine.runtime.cancellation import NEVER, Stop

T = TypeVar("T")
_LOOK: Final = 0.02  # seconds between two looks whether the call is to end
_LAST: Final = 5.0  # seconds that the end waits for cancelled requests


class Network:
    """An event loop in a thread of its own.  It ends with :meth:`close`, or when nobody has it any more."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="ragengine-shards", daemon=True)
        self._lock, self._users = threading.Lock(), 0
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._loop)

    def run(self, work: Coroutine[Any, Any, T], stop: Stop = NEVER) -> T:
        """What ``work`` returns, in the loop's thread; it is cancelled where this call ends without it.

        Raises:
            DeadlineError, CancelledError: ``stop`` says so.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        wait = None if stop is NEVER else _LOOK
        try:
            while True:
                concurrent.futures.wait([future], wait)
                if future.done():
                    return future.result()
                stop.check("while a shard was asked")
        finally:
            future.cancel()

    def retain(self) -> None:
        """Somebody uses it, too, until :meth:`release`."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Somebody uses it no more; after the last one it is closed."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self.close()

    def close(self) -> None:
        """Cancel what runs, and end the thread; may be called again."""
        self._end()
        if self._thread is not threading.current_thread():
            self._thread.join(_LAST)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=_LAST) if tasks else asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed already
        loop.call_soon_threadsafe(loop.stop)
