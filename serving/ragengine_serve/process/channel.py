"""The line between the supervisor and a worker: JSON objects, one a line, over a socket pair."""

import asyncio
import contextlib
import json
import socket
from typing import Any

_LONGEST = 1 << 20


class Channel:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """The end of a connected socket."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LONGEST))

    async def send(self, type: str, **content: Any) -> None:
        """Send a message; without anybody at the other end it is lost."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(json.dumps({"type": type, **content}).encode() + b"\n")
            await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
