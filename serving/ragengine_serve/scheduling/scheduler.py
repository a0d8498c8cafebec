"""The scheduler: a bounded queue in front of the engines, and the threads that empty it.

A free thread takes the oldest question that is ready for its work, or, where none is, all that wait (up to
``max_batch``) and encodes and searches them together.  Batches so form by themselves while all threads are
busy, and a question that comes alone waits for nobody.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from ragengine.errors import CancelledError
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.errors import ApiError
from ragengine_serve.scheduling.answer_cache import AnswerCache, is_whole
from ragengine_serve.scheduling.job import AllCancelled, Job, Task, Ticket

_FORGETTING = 0.2  # weight of the newest duration in the average that Retry-After is made of


class Watcher(Protocol):
    """Who is told what the scheduler does, for the metrics."""

    def batch(self, stage: str, size: int) -> None:
        """So many jobs are computed together in a stage."""

    def queue(self, waiting: int, running: int) -> None:
        """How many jobs wait, and how many are computed."""

    def shared(self, how: str) -> None:
        """A request needs no work of its own, and why."""


class Scheduler:
    """Runs jobs of all models in ``settings.executors`` threads."""

    def __init__(self, settings: Settings, watcher: Watcher) -> None:
        self._settings = settings
        self._watcher = watcher
        self.cache = AnswerCache(settings.cache_answers)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()  # neither encoded nor searched
        self._ready: deque[Job] = deque()
        self._shared: dict[Hashable, Job] = {}
        self._running: set[Job] = set()
        self._draining = self._stopped = False
        self._seconds = 0.0  # that a job takes, on average
        self._threads = [
            threading.Thread(target=self._execute, name=f"executor-{number}", daemon=True)
            for number in range(settings.executors)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, tasks: Sequence[Task]) -> list[Ticket]:
        """Queue the questions of a request, all of them or none; a place at each.

        Raises:
            ApiError: 429, the queue is full; 503, the server is draining.
        """
        with self._changed:
            if self._draining:
                raise ApiError(
                    503, "draining", "The server is shutting down; ask another, or later.", retry_after=1
                )
            self._forget_cancelled()
            found = [self._join(task.key) or Job(task) for task in tasks]
            new = [job for job in found if isinstance(job, Job)]
            free = max(0, len(self._threads) - len(self._running))
            if new and self._queued + len(new) > self._settings.max_queue + free:
                for ticket in found:
                    if isinstance(ticket, Ticket):
                        ticket.leave()
                raise ApiError(
                    429,
                    "queue_full",
                    f"{self._queued} questions wait, at most {self._settings.max_queue} may; ask later.",
                    retry_after=self._retry_after(),
                )
            tickets = [ticket if isinstance(ticket, Ticket) else self._queue(ticket) for ticket in found]
            self._told()
            self._changed.notify(len(new))
            return tickets

    def drain(self) -> None:
        """Take no further job; those that are queued and running finish."""
        with self._changed:
            self._draining = True

    @property
    def idle(self) -> bool:
        """Whether no job is queued or running."""
        with self._changed:
            return not (self._queued or self._running)

    def stop(self, wait: float) -> None:
        """End the threads; what still runs is cancelled, and may take ``wait`` seconds to notice."""
        with self._changed:
            self._draining = self._stopped = True
            for job in (*self._waiting, *self._ready, *self._running):
                job.cancel.set()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(wait)

    # Queueing; the lock is held.

    @property
    def _queued(self) -> int:
        return len(self._waiting) + len(self._ready)

    def _join(self, key: Hashable | None) -> Ticket | None:
        """A place at the result, or at the job, of that key, if there is one that is not given up."""
        if key is None:
            return None
        if (result := self.cache.get(key)) is not None:
            self._watcher.shared("cached")
            return Ticket.done(result)
        job = self._shared.get(key)
        ticket = None if job is None else job.join()
        if ticket is not None:
            self._watcher.shared("joined")
        return ticket

    def _queue(self, job: Job) -> Ticket:
        # within one request, too, the same question is computed once
        if (ticket := self._join(job.task.key)) is not None:
            return ticket
        ticket = job.join()
        assert ticket is not None
        if job.task.key is not None:
            self._shared[job.task.key] = job
        # without a question there is nothing to encode
        (self._ready if job.task.question is None else self._waiting).append(job)
        return ticket

    def _retry_after(self) -> int:
        """Seconds until the queue of now is done."""
        return max(1, math.ceil(self._queued * self._seconds / len(self._threads)))

    def _told(self) -> None:
        self._watcher.queue(self._queued, len(self._running))

    # Executing

    def _execute(self) -> None:
        while (taken := self._take()) is not None:
            jobs, prepared = taken
            if prepared:
                self._work(jobs)
            else:
                self._prepare(jobs)

    def _take(self) -> tuple[list[Job], bool] | None:
        """Jobs for a thread, and whether they are ready for their work; None at the end."""
        with self._changed:
            while True:
                self._forget_cancelled()
                if self._ready:
                    jobs = self._group()
                elif self._waiting:
                    jobs = self._batch()
                elif self._stopped:
                    return None
                else:
                    self._changed.wait()
                    continue
                self._running.update(jobs)
                self._told()
                return jobs, jobs[0].prepared is not None or jobs[0].task.question is None

    def _forget_cancelled(self) -> None:
        """Drop the queued jobs that nobody waits for."""
        for queue in (self._waiting, self._ready):
            for job in [job for job in queue if job.cancel.is_set()]:
                queue.remove(job)
                self._forget(job)
        self._told()

    def _group(self) -> list[Job]:
        """The oldest job that is ready, with those that may be generated together with it."""
        first = self._ready.popleft()
        jobs, group, model = [first], first.task.work.group, first.task.model
        if group is not None and model is not None:
            most = self._settings.generation_batch(model.engine.device) if model.batches else 1
            for job in list(self._ready):
                if len(jobs) == most:
                    break
                if job.task.model is model and job.task.work.group == group:
                    self._ready.remove(job)
                    jobs.append(job)
        return jobs

    def _batch(self) -> list[Job]:
        """The oldest jobs of one model that wait to be encoded and searched."""
        model = self._waiting[0].task.model
        assert model is not None  # a question is a model's
        most = self._settings.max_batch if model.batches else 1
        jobs = [job for job in self._waiting if job.task.model is model][:most]
        for job in jobs:
            self._waiting.remove(job)
        return jobs

    def _prepare(self, jobs: list[Job]) -> None:
        """Encode and search; then the jobs are ready."""
        now = time.perf_counter()
        for job in jobs:
            job.waited_ms = (now - job.queued) * 1000
        self._watcher.batch("search", len(jobs))
        model = jobs[0].task.model
        assert model is not None  # a question is a model's
        try:
            prepared = model.engine.prepare(
                [job.task.question or "" for job in jobs],
                [job.task.n_docs for job in jobs],
                cancel=AllCancelled(jobs),
            )
        except BaseException as error:
            if len(jobs) > 1:  # whose fault it is shows when each is alone
                for job in jobs:
                    self._prepare([job])
            else:
                self._finish(jobs[0], error=error)
            return
        for job, one in zip(jobs, prepared, strict=True):
            job.prepared = one
        with self._changed:
            self._running.difference_update(jobs)
            self._ready.extend(jobs)
            self._changed.notify(len(jobs))
            self._told()

    def _work(self, jobs: list[Job]) -> None:
        started = time.perf_counter()
        for job in jobs:
            if job.task.question is None:
                job.waited_ms = (started - job.queued) * 1000
        self._watcher.batch("generate", len(jobs))
        if not self._together(jobs):
            for job in jobs:
                self._alone(job)
        seconds = (time.perf_counter() - started) / len(jobs)
        self._seconds += _FORGETTING * (seconds - self._seconds)

    def _together(self, jobs: list[Job]) -> bool:
        """Whether the jobs were several, and finished in one computation."""
        if len(jobs) == 1:
            return False
        with contextlib.suppress(Exception):  # whose fault it is shows when each is alone
            prepared = [job.prepared for job in jobs if job.prepared]
            results = jobs[0].task.work.together(prepared, AllCancelled(jobs))
            for job, result in zip(jobs, results, strict=True):
                self._finish(job, result)
            return True
        return False

    def _alone(self, job: Job) -> None:
        try:
            if job.cancel.is_set():
                raise CancelledError("Nobody waits for the answer any more.")
            result = job.task.work.alone(job.prepared, job.cancel)
        except BaseException as error:  # it is the job's, and this thread works on
            self._finish(job, error=error)
        else:
            self._finish(job, result)

    def _finish(self, job: Job, result: Any = None, error: BaseException | None = None) -> None:
        if error is None and is_whole(result):
            self.cache.put(job.task.key, result)
        with self._changed:
            self._running.discard(job)
            self._forget(job)
            self._told()
        job.finish(result, error)

    def _forget(self, job: Job) -> None:
        """Let nobody join the job any more."""
        if job.task.key is not None and self._shared.get(job.task.key) is job:
            del self._shared[job.task.key]
