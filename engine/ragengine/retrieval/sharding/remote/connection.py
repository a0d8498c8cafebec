"""HTTP/1.1 over asyncio's streams, as much of it as the server of a shard speaks.

A response must say its length.  Redirects are not followed, and no proxy of the environment is used.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Final

from ragengine.retrieval.sharding.remote.addresses import Address

_MOST_IDLE: Final = 16
_LONGEST_HEAD: Final = 64 << 10
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")


@dataclass(frozen=True)
class Response:
    """Status, the fingerprint of the index that answered ("" where it is not said), and the body."""

    status: int
    index: str
    body: bytes


class BadResponse(Exception):
    """What came back is no response, or is too long; the text ends a sentence."""


class Connections:
    """Connections to one address that stay open between requests.  For one event loop."""

    def __init__(self, address: Address, *, longest: int, tls: ssl.SSLContext | None) -> None:
        """``longest`` is the most bytes of a response's body; ``tls`` is for ``https://``."""
        self._address, self._longest = address, longest
        self._idle: list[_Connection] = []
        self._ssl = tls if address.secure else None

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        """Send a request and read the response.  Cancelled, it closes its connection.

        A connection that the server closed while it was idle is replaced once: every request may be repeated.

        Raises:
            BadResponse: the response cannot be read.
            OSError: there is no connection, or it broke.
        """
        sent = self._head(method, path, headers, len(body)) + body
        while self._idle:
            kept = self._idle.pop()
            if kept.usable:
                try:
                    return await self._exchange(kept, sent)
                except _Unanswered:
                    break
            kept.close()
        return await self._exchange(await self._connect(), sent)

    async def close(self) -> None:
        """Close the connections that are idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round

    async def _connect(self) -> "_Connection":
        reader, writer = await asyncio.open_connection(
            self._address.host,
            self._address.port,
            limit=_LONGEST_HEAD,
            ssl=self._ssl,
            server_hostname=self._address.host if self._ssl else None,
        )
        return _Connection(reader, writer)

    async def _exchange(self, connection: "_Connection", sent: bytes) -> Response:
        kept = False
        try:
            response, kept = await connection.exchange(sent, self._longest)
            kept = kept and len(self._idle) < _MOST_IDLE
            if kept:
                self._idle.append(connection)
            return response
        finally:
            if not kept:
                connection.close()

    def _head(self, method: str, path: str, headers: dict[str, str], length: int) -> bytes:
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        told = {"Host": f"{host}:{self._address.port}", **headers, "Content-Length": str(length)}
        lines = [f"{method} {self._address.path}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in told.items())]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


class _Unanswered(ConnectionError):
    """The server closed the connection before the first byte of a response."""


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def usable(self) -> bool:
        """Whether the server has neither closed it nor said anything unasked."""
        unread = self._reader._buffer  # type: ignore[attr-defined]  # asyncio has no public way to see it
        return not (self._writer.is_closing() or self._reader.at_eof() or unread)

    async def exchange(self, sent: bytes, longest: int) -> tuple[Response, bool]:
        """The response to a request, and whether the connection stays open."""
        try:
            self._writer.write(sent)
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as reason:
            raise BadResponse(f"its response has a head of more than {_LONGEST_HEAD} bytes") from reason
        except asyncio.IncompleteReadError as reason:
            if reason.partial:
                raise BadResponse("its response ends in the head") from reason
            raise _Unanswered("the connection was closed without a response") from reason
        except ConnectionError as reason:
            raise _Unanswered("the connection broke") from reason
        status, headers = _read_head(head)
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not re.fullmatch(rb"[0-9]{1,15}", length):
            raise BadResponse("its response does not say its length")
        if int(length) > longest:
            raise BadResponse(f"its response has {int(length)} bytes, and at most {longest} are read")
        try:
            body = await self._reader.readexactly(int(length))
        except asyncio.IncompleteReadError as reason:
            raise BadResponse(
                f"its response ends after {len(reason.partial)} of {int(length)} bytes"
            ) from reason
        stays = head.startswith(b"HTTP/1.1") and headers.get(b"connection", b"").lower() != b"close"
        return Response(status, headers.get(b"x-ragengine-index", b"").decode("latin-1"), body), stays

    def close(self) -> None:
        """Close the socket at once: to flush first would wait for a server that reads nothing."""
        self._writer.transport.abort()


def _read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """The status and the headers of a response, names in small letters."""
    first, *lines = head[:-4].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise BadResponse("what it answers is no HTTP")
    pairs = [line.partition(b":") for line in lines]
    if not all(colon and name for name, colon, _ in pairs):
        raise BadResponse("its response has a header without a name")
    return int(status[1]), {name.lower(): value.strip() for name, _, value in pairs}
