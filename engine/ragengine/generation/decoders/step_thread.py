"""The thread of the static decoder's steps: onnxruntime keeps captured CUDA graphs with a thread."""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ragengine.generation.decoders.base import Result


class StepThread:
    """Runs single steps, or a whole search, whose steps then pass from no thread to another.

    To pass a step there and back takes up to half a millisecond, a third of a step on a GPU.  While a search
    is in the thread, those of other threads run beside it: their steps come between its steps, their own
    work while it waits for the GPU.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ragengine-step")
        weakref.finalize(self, self._executor.shutdown, wait=False)
        self._waiting: deque[Callable[[], None]] = deque()
        self._taken = threading.Lock()  # by a search
        self._abandoned = threading.Event()  # that search
        self._number: int | None = None

    def step(self, step: Callable[[], Result]) -> Result:
        """What ``step`` returns or raises, run in the thread."""
        if self._number != threading.get_ident():
            return self._submitted(step).result()
        self._run_waiting()
        if self._abandoned.is_set():
            raise SystemExit  # nobody waits for the search any more
        return step()

    def search(self, search: Callable[[], Result]) -> Result:
        """What ``search`` returns or raises: in the thread if no other search is there, else in this one."""
        if self._number == threading.get_ident() or not self._taken.acquire(blocking=False):
            return search()
        self._abandoned.clear()
        try:
            found = self._submitted(search)
        except BaseException:
            self._taken.release()
            raise
        found.add_done_callback(lambda _: self._taken.release())
        try:
            return found.result()
        except BaseException:
            if not found.done():  # Ctrl-C came to this thread alone
                self._abandoned.set()
            raise

    def _submitted(self, work: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        self._waiting.append(lambda: _settle(future, work))
        self._executor.submit(self._run_waiting)
        return future

    def _run_waiting(self) -> None:
        self._number = threading.get_ident()
        while self._waiting:
            self._waiting.popleft()()


def _settle(future: "Future[Any]", work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as reason:
        future.set_exception(reason)
    else:
        future.set_result(result)
