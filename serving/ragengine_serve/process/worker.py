"""A worker: a server process below a supervisor.

    python -m ragengine_serve.process.worker LISTENING_FD CHANNEL_FD

It ends when it is told to, and when the supervisor is gone.
"""

import asyncio
import itertools
import os
import socket
import sys
from typing import Any

from ragengine.errors import RagEngineError
from ragengine_serve.configuration.sources import from_json
from ragengine_serve.errors import ApiError
from ragengine_serve.observability.logs import configure_logging
from ragengine_serve.process.channel import Channel
from ragengine_serve.process.server import serve
from ragengine_serve.state import ServerState

FAILED = 3
"""The exit code of a worker that cannot start; it has told the supervisor why."""


class Worker:
    """This process's side of the line to the supervisor."""

    def __init__(self, channel: Channel, state: ServerState) -> None:
        self._channel, self._state = channel, state
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self.stop = asyncio.Event()

    async def swap(self, name: str | None, path: str) -> None:
        """Ask the supervisor to swap an index in every worker.

        Raises:
            ApiError: a worker refused the index.
        """
        number, done = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = done
        await self._channel.send("swap", number=number, model=name, path=path)
        try:
            await done
        finally:
            del self._asked[number]

    async def ready(self) -> None:
        """Tell the supervisor that this worker takes requests."""
        await self._channel.send("ready")

    async def listen(self) -> None:
        """Do what the supervisor says until it hangs up."""
        while (message := await self._channel.receive()) is not None:
            if message["type"] == "apply":
                await self._apply(message)
            elif message["type"] == "swapped":
                self._answered(message)
        self.stop.set()

    async def _apply(self, message: dict[str, Any]) -> None:
        error = None
        try:
            await asyncio.to_thread(self._state.swap_here, message["model"], message["path"])
        except ApiError as refused:
            error = [refused.status, refused.type, refused.message, refused.field]
        except Exception as failure:  # the supervisor hears of it, and this worker goes on
            error = [500, "internal", f"A worker failed with {type(failure).__name__}.", None]
        await self._channel.send("applied", error=error)

    def _answered(self, message: dict[str, Any]) -> None:
        done = self._asked.get(message["number"])
        if done is None or done.done():
            return
        if message["error"] is None:
            done.set_result(None)
        else:
            done.set_exception(ApiError(*message["error"]))


async def work(listening: socket.socket, line: socket.socket) -> None:
    """Serve with the settings that the supervisor sends first."""
    channel = await Channel.over(line)
    first = await channel.receive()
    if first is None:
        return
    settings = from_json(first["settings"])
    configure_logging(settings.log_level)
    try:
        state = ServerState.of(settings)
        worker = Worker(channel, state)
        state.swap = worker.swap
        listening_task = asyncio.create_task(worker.listen())
        await serve(state, listening, load_first=first["replaces"], ready=worker.ready, stop=worker.stop)
        listening_task.cancel()
    except RagEngineError as error:
        await channel.send("failed", message=str(error))
        await channel.close()
        sys.exit(FAILED)


def main(listening_fd: int, line_fd: int) -> None:
    """Run a worker on inherited sockets."""
    os.set_inheritable(listening_fd, False)
    asyncio.run(work(socket.socket(fileno=listening_fd), socket.socket(fileno=line_fd)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
