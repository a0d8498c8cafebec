"""Where batches are answered: in this process, or in several, whose answers come back in order."""

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from ragengine import errors
from ragengine.batch_inference.identity import engine_identity
from ragengine.batch_inference.records import answered_records
from ragengine.engine import RagEngine
from ragengine.errors import ProcessError, RagEngineError

Batch = Sequence[str]
Records = list[dict[str, Any]]
_AHEAD: Final = 4
"""Batches a process that may be done before the one whose turn it is; a kill loses no more."""
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {0} import main; main()"


@dataclass(frozen=True)
class Setup:
    """What a process loads, with keyword arguments of :meth:`RagEngine.load` and ``generate``."""

    bundle: str
    index: str
    load: dict[str, Any]
    settings: dict[str, Any]
    deadline: float | None


class Answering(Protocol):
    """Answers batches in their order."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What the answers depend on, as :func:`engine_identity` says it."""
        ...

    def answered(self, batches: Iterable[Batch]) -> Iterator[Records]:
        """The records of each batch, as :func:`answered_records` makes them."""
        ...

    def __enter__(self) -> "Answering": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InThisProcess:
    """One engine of this process's own."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine = RagEngine.load(setup.bundle, index=setup.index, **setup.load)
        try:
            self.identity = engine_identity(self._engine, setup.settings)
        except BaseException:
            self._engine.close()
            raise

    def answered(self, batches: Iterable[Batch]) -> Iterator[Records]:
        """The records of each batch."""
        for batch in batches:
            yield answered_records(self._engine, batch, self._setup.settings, self._setup.deadline)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()


class InProcesses:
    """Several processes with an engine each; they share the mapped files of the index in the page cache."""

    def __init__(self, setup: Setup, count: int) -> None:
        self._members: list[_Member] = []
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="ragengine-batch")
        try:
            for number in range(count):
                # One process has every byte read that `verify` asks for.
                load = setup.load if number == 0 else {**setup.load, "verify": "size"}
                self._members.append(_Member(Setup(**{**asdict(setup), "load": load})))
            self.identity, *_ = [member.receive()["identity"] for member in self._members]
        except BaseException:
            self._close()
            raise
        self._idle: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        for member in self._members:
            self._idle.put(member)

    def answered(self, batches: Iterable[Batch]) -> Iterator[Records]:
        """The records of each batch."""
        asked: deque[Future[Records]] = deque()
        for batch in batches:
            asked.append(self._threads.submit(self._answered, batch))
            if len(asked) >= _AHEAD * len(self._members):
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()

    def _answered(self, batch: Batch) -> Records:
        member = self._idle.get()
        try:
            member.send(batch)
            records: Records = member.receive()["records"]
        finally:
            self._idle.put(member)
        return records

    def _close(self) -> None:
        for member in self._members:
            member.kill()  # its threads then read the end of its pipe
        self._threads.shutdown(cancel_futures=True)
        for member in self._members:
            member.close()

    def __enter__(self) -> "InProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


class _Member:
    """A process of :mod:`ragengine.batch_inference.worker`, which is loading."""

    def __init__(self, setup: Setup) -> None:
        start = _START.format("ragengine.batch_inference.worker")
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(setup.load["threads"])},
            start_new_session=True,  # Ctrl-C is for the parent, which then ends this process
        )
        try:
            self.send(asdict(setup))
        except BaseException:
            self.kill()
            self.close()
            raise

    def send(self, message: Any) -> None:
        """Send a line; raises :class:`ProcessError` where the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message, default=os.fspath).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as reason:
            raise self._ended() from reason

    def receive(self) -> dict[str, Any]:
        """The next reply; raises the typed error that the process ended with."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise typed_error(reply["error"])
        return reply

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that nobody read
                    pipe.close()

    def _ended(self) -> ProcessError:
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return ProcessError(
            f"A process that answered questions ended {how}; if memory ran out, give fewer processes, and "
            "run the same command again to go on."
        )


def typed_error(said: Mapping[str, str], where: str = "") -> RagEngineError:
    """The error that a record or a process tells of; ``where`` is put before its message."""
    kind: type[RagEngineError] = getattr(errors, said["type"], RagEngineError)
    return kind(f"{where}{said['message']}")
