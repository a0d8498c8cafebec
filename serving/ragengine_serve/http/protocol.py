"""uvicorn's HTTP/1.1 connection, with limits of time for sender and reader, and errors in JSON."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import error_body

_HEADERS = [(b"content-type", b"application/json"), (b"connection", b"close")]


def connection_protocol(request_timeout: float) -> type[H11Protocol]:
    """The class of connections whose headers have to come within ``request_timeout`` seconds.

    A client that takes nothing of its response for as long is hung up on: else its connection and what is
    left to send would stay for ever.  Bodies have their own limit in :mod:`ragengine_serve.http.bodies`.
    """

    class TimedProtocol(H11Protocol):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._late: asyncio.TimerHandle | None = None
            self._reading: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
            super().connection_made(transport)
            self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_headers()
            if self._reading is not None:
                self._reading.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._forget_headers()
            elif self._late is None and self.conn.trailing_data[0]:
                self._await_headers()  # of the next request on this connection

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch_reader()

        def send_400_response(self, msg: str) -> None:
            self._refuse(
                ApiError(400, "invalid_http", "This is not an HTTP request that the server can read.")
            )

        def _await_headers(self) -> None:
            self._late = self.loop.call_later(request_timeout, self._headers_late)

        def _forget_headers(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _headers_late(self) -> None:
            self._late = None
            self._refuse(
                ApiError(408, "slow_client", f"No request came within {request_timeout:g} s; send it faster.")
            )

        def _watch_reader(self) -> None:
            if self._reading is None and (left := self.transport.get_write_buffer_size()):
                self._reading = self.loop.call_later(request_timeout, self._look_at_reader, left)

        def _look_at_reader(self, before: int) -> None:
            """Look whether the client has taken any of the ``before`` bytes that were left to send."""
            self._reading = None
            if self.transport.get_write_buffer_size() >= before:
                self.transport.abort()
            else:
                self._watch_reader()

        def _refuse(self, error: ApiError) -> None:
            """Answer and hang up; what was sent so far may be half a request."""
            if self.transport.is_closing():
                return
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps(error_body(error)).encode()
                length = (b"content-length", str(len(body)).encode())
                for event in (
                    h11.Response(status_code=error.status, headers=[*_HEADERS, length]),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return TimedProtocol
