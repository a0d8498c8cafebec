"""One thread that does all searches, because a GPU index is not safe to search from several."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.errors import ClosedError
from ragengine.runtime.lifecycle import OneProcess, leak_in_forks

Found: TypeAlias = tuple[FloatArray, RowArray]
CandidateSearch: TypeAlias = Callable[[FloatArray, int, int | None], Found]
"""``search(questions [Q, E], width, nprobe)`` -> scores float32 and rows int64, both [Q, width].

Best first, -1 where fewer were found; ``nprobe`` None is the index's own.
"""

MOST_WAITING = 1024
"""Searches that may wait in the queue; further callers wait until there is room."""
BATCH_QUESTIONS = 256
"""Questions that are searched together, unless one call has more."""


@dataclass(eq=False)
class _Asked:
    """A search that waits for its turn."""

    questions: FloatArray
    width: int
    nprobe: int | None
    found: "Future[Found]" = field(default_factory=Future)

    def goes_with(self, other: "_Asked") -> bool:
        return (self.width, self.nprobe) == (other.width, other.nprobe)


class SearchWorker(OneProcess):
    """A :data:`CandidateSearch` that many threads may call; a thread of its own does the searching.

    Calls that wait meanwhile are searched together next if width and nprobe agree: the more threads ask, the
    larger the batches.  Searches start in the order of their calls, except for those that join a batch.
    ``search`` belongs to the thread, and is released when the thread ends.
    """

    def __init__(
        self,
        search: CandidateSearch,
        *,
        most_selected: int,
        most_waiting: int = MOST_WAITING,
        batch_questions: int = BATCH_QUESTIONS,
    ) -> None:
        """``most_selected`` is the greatest width and nprobe that ``search`` takes."""
        super().__init__()
        self.most_selected = most_selected
        self._queue = _Queue(most_waiting, batch_questions)
        # A daemon: an application that forgot to close must be able to end.
        self._thread = threading.Thread(
            target=_work, args=(search, self._queue), name="ragengine-search", daemon=True
        )
        self._thread.start()
        # The thread refers to the queue only, so the thread of a worker without references ends.
        self._end = weakref.finalize(self, self._queue.close)
        self._end.atexit = False  # nothing waits for the thread then, and a fork has neither it nor its lock
        leak_in_forks(self)

    def __call__(self, questions: FloatArray, width: int, nprobe: int | None) -> Found:
        """Search and wait for the result; what the search raises is raised here.

        Raises :class:`ClosedError` after :meth:`close` and :class:`ProcessError` in a fork, which has neither
        the thread nor CUDA.
        """
        self._check_process()
        asked = _Asked(questions, width, nprobe)
        self._queue.put(asked)
        try:
            return asked.found.result()
        except BaseException:
            asked.found.cancel()  # interrupted while it waited: the result is no longer needed
            raise

    def close(self) -> None:
        """Take no more searches and return when those that wait are done; may be called again."""
        if self._in_fork:
            return
        self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class _Queue:
    """A bounded queue of searches, taken in batches."""

    def __init__(self, most: int, batch_questions: int) -> None:
        self._most = most
        self._batch_questions = batch_questions
        self._waiting: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, asked: _Asked) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._most)
            if self._closed:
                raise ClosedError("The index was closed; open it again.")
            self._waiting.append(asked)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def batches(self) -> Iterator[list[_Asked]]:
        """Batches as they come; ends when the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                batch = self._take()
                self._changed.notify_all()
            yield batch

    def _take(self) -> list[_Asked]:
        """The first search in the queue, and those behind it that can be searched with it."""
        first = self._waiting.popleft()
        batch, room = [first], self._batch_questions - len(first.questions)
        left: deque[_Asked] = deque()
        for asked in self._waiting:
            if asked.goes_with(first) and len(asked.questions) <= room:
                batch.append(asked)
                room -= len(asked.questions)
            else:
                left.append(asked)
        self._waiting = left
        return batch


def _work(search: CandidateSearch, queue: _Queue) -> None:
    """The thread: search batch after batch."""
    for taken in queue.batches():
        batch = [asked for asked in taken if asked.found.set_running_or_notify_cancel()]
        if batch:
            _answer(search, batch)


def _answer(search: CandidateSearch, batch: list[_Asked]) -> None:
    """Search a batch together; if that fails, each alone, so that every call gets its own error or result."""
    first = batch[0]
    try:
        questions = first.questions if len(batch) == 1 else np.concatenate([a.questions for a in batch])
        scores, rows = search(questions, first.width, first.nprobe)
    except BaseException as error:
        if len(batch) == 1:
            first.found.set_exception(error)
        else:
            for asked in batch:
                _answer(search, [asked])
        return
    start = 0
    for asked in batch:
        end = start + len(asked.questions)
        asked.found.set_result((scores[start:end], rows[start:end]))
        start = end
