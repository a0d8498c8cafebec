"""One question's work, which several requests may wait for."""

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from ragengine import PreparedQuestion
from ragengine.runtime.cancellation import CancelSignal
from ragengine_serve.models.served_model import ServedModel


class Work(Protocol):
    """What is to be computed for a question that has been encoded and searched."""

    @property
    def group(self) -> Hashable | None:
        """Works of equal groups may be computed together; None: alone."""

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> Any:
        """The result for one question; ``prepared`` is None for work without a question."""

    def together(self, prepared: list[PreparedQuestion], cancel: CancelSignal) -> list[Any]:
        """The results for questions of one group."""


@dataclass(frozen=True, eq=False)
class Task:
    """One question of a request.

    model     what answers it; None for work that needs none
    question  None for work that has none
    n_docs    documents to search for; 0: none
    key       tasks of equal keys have equal results and are computed once; None: never shared
    """

    model: ServedModel | None
    work: Work
    question: str | None = None
    n_docs: int = 0
    key: Hashable | None = None


class Job:
    """A task that is queued or running, and the requests that wait for it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.prepared: PreparedQuestion | None = None
        self.cancel = threading.Event()
        self.queued = time.perf_counter()
        self.waited_ms = 0.0
        self._waiting: set[Ticket] = set()
        self._lock = threading.Lock()

    def join(self) -> "Ticket | None":
        """Wait for this job, too; None where it was given up already."""
        with self._lock:
            if self.cancel.is_set():
                return None
            ticket = Ticket(self)
            self._waiting.add(ticket)
            return ticket

    def leave(self, ticket: "Ticket") -> None:
        """Wait no longer; without anybody who waits the work is cancelled."""
        with self._lock:
            self._waiting.discard(ticket)
            if not self._waiting:
                self.cancel.set()

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Give the result, or the error, to everybody who waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
            self.cancel.set()  # nobody can join any more
        for ticket in waiting:
            if not ticket.future.set_running_or_notify_cancel():
                continue
            if error is not None:
                ticket.future.set_exception(error)
            else:
                ticket.future.set_result(result)


class Ticket:
    """One request's place at a job; without a job, at a result that is there already."""

    def __init__(self, job: Job | None) -> None:
        self._job = job
        self.future: Future[Any] = Future()

    @classmethod
    def done(cls, result: Any) -> "Ticket":
        """A place where nobody has to wait."""
        ticket = cls(None)
        ticket.future.set_result(result)
        return ticket

    @property
    def waited_ms(self) -> float:
        """Milliseconds that the job was queued."""
        return self._job.waited_ms if self._job else 0.0

    def leave(self) -> None:
        """Wait no longer for the job."""
        if self._job is not None:
            self._job.leave(self)


class AllCancelled:
    """The cancellation of jobs that are computed together: when nobody waits for any of them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._events = [job.cancel for job in jobs]

    def is_set(self) -> bool:
        """Whether every job was cancelled."""
        return all(event.is_set() for event in self._events)
