"""The parent of several workers: replaces those that die, swaps indexes in all, ends them in order."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

from ragengine_serve.configuration.settings import Settings
from ragengine_serve.configuration.sources import to_json
from ragengine_serve.errors import StartError
from ragengine_serve.observability.logs import log
from ragengine_serve.process.channel import Channel

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks at it when it is imported
_SOON = 10.0  # seconds; a worker that lives shorter is replaced ever later
_LATEST = 30.0
_GRACE = 10.0  # seconds beyond the drain timeout until a worker is killed


class _Member:
    """A worker as its supervisor sees it."""

    def __init__(self, process: Process, channel: Channel) -> None:
        self.process, self.channel = process, channel
        self.ready = False
        self.message: str | None = None  # why it cannot start
        self.applied: asyncio.Future[Any] | None = None  # the swap that it is doing


class Supervisor:
    """Runs ``settings.workers`` workers on one listening socket."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings, self._listening = settings, listening
        self._indexes: dict[str, Path] = {}
        self._members: dict[int, _Member] = {}
        self._swapping = asyncio.Lock()
        self._stop = asyncio.Event()
        self._started: set[int] = set()  # the numbers whose worker was ready once
        self._error: StartError | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; then every worker drains.

        Raises:
            StartError: a worker ended before it was ever ready.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        with tempfile.TemporaryDirectory(prefix="ragengine-metrics-") as folder:
            os.environ[_MULTIPROCESS] = folder
            from ragengine_serve.observability.metrics import Metrics

            self._metrics = Metrics()
            keepers = [asyncio.create_task(self._keep(n)) for n in range(self._settings.workers)]
            await self._stop.wait()
            await self._end(keepers)
        if self._error is not None:
            raise self._error

    async def _keep(self, number: int) -> None:
        """Have a worker in place ``number``, again and again, until the end."""
        from prometheus_client.multiprocess import mark_process_dead

        pause = 0.0
        while not self._stop.is_set():
            born = time.monotonic()
            member = await self._start(number)
            await self._listen(number, member)
            await member.channel.close()
            code = await member.process.wait()
            del self._members[number]
            mark_process_dead(member.process.pid)  # type: ignore[no-untyped-call]  # prometheus_client
            if self._stop.is_set():
                return
            if number not in self._started:
                told = (
                    member.message
                    or f"A worker ended with code {code} before it was ready; its log says why."
                )
                self._error = self._error or StartError(told)
                self._stop.set()
                return
            log.error(
                "worker died", extra={"fields": {"worker": number, "pid": member.process.pid, "code": code}}
            )
            self._metrics.restarted()
            pause = min(_LATEST, max(0.5, 2 * pause)) if time.monotonic() - born < _SOON else 0.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause or 0.001)

    async def _start(self, number: int) -> _Member:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ragengine_serve.process.worker",
                str(self._listening.fileno()),
                str(theirs.fileno()),
                pass_fds=(self._listening.fileno(), theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
            )
        ours.setblocking(False)
        member = _Member(process, await Channel.over(ours))
        self._members[number] = member
        from ragengine_serve.models.registry import loaded_from

        settings = loaded_from(self._settings, self._indexes)
        await member.channel.send("settings", settings=to_json(settings), replaces=number in self._started)
        return member

    async def _listen(self, number: int, member: _Member) -> None:
        """Do what a worker asks for until it hangs up."""
        swaps = set()
        while (message := await member.channel.receive()) is not None:
            if message["type"] == "ready":
                member.ready = True
                self._started.add(number)
            elif message["type"] == "failed":
                member.message = message["message"]
            elif message["type"] == "applied" and member.applied is not None:
                member.applied.set_result(message["error"])
            elif message["type"] == "swap":
                task = asyncio.create_task(self._swap(member, message))
                swaps.add(task)
                task.add_done_callback(swaps.discard)
        if member.applied is not None and not member.applied.done():
            member.applied.set_result([500, "internal", "A worker died during the swap.", None])

    async def _swap(self, origin: _Member, message: dict[str, Any]) -> None:
        """Swap an index in every worker that is ready; the others will load the new one.

        An index that all refuse changes nothing.  Where only some could open it, those that could not are
        replaced.
        """
        async with self._swapping:
            before = self._indexes.get(message["model"])
            self._indexes[message["model"]] = Path(message["path"])
            members = [member for member in self._members.values() if member.ready]
            errors = await asyncio.gather(*(self._apply(member, message) for member in members))
            refused = [(member, error) for member, error in zip(members, errors, strict=True) if error]
            if len(refused) == len(members):
                if before is None:
                    del self._indexes[message["model"]]
                else:
                    self._indexes[message["model"]] = before
            else:
                for member, _ in refused:
                    with contextlib.suppress(ProcessLookupError):
                        member.process.terminate()
        error = refused[0][1] if refused and len(refused) == len(members) else None
        await origin.channel.send("swapped", number=message["number"], error=error)

    async def _apply(self, member: _Member, message: dict[str, Any]) -> Any:
        member.applied = asyncio.get_running_loop().create_future()
        await member.channel.send("apply", model=message["model"], path=message["path"])
        error = await member.applied
        member.applied = None
        return error

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        """Let every worker drain; kill those that take too long."""
        for member in list(self._members.values()):
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._settings.drain_timeout + _GRACE)
        for member in list(self._members.values()):
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()
        if late:
            await asyncio.wait(late, timeout=_GRACE)
