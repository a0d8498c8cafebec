"""Bodies of requests: read whole, no longer and no later than allowed, before anybody looks at them."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragengine.messages import one_line
from ragengine.storage.strict_json import parse_json
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import error_reply
from ragengine_serve.http.unread import reply_unread

_MOST_NAMES = 1000  # of an object; to say of 100,000 that each is unknown would hold the server up
_BINARY = "inference-header-content-length"  # KServe's: JSON, then tensors


class ClientGone(Exception):
    """The client hung up."""


class BodyLimits:
    """ASGI middleware: refuses bodies that are too long, too slow, or no JSON (413, 408, 415, 400)."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, timeout: float, media_type: str | None = None
    ) -> None:
        """``media_type`` is what bodies may be instead of JSON, which their endpoints read."""
        self._app, self._max_bytes, self._timeout = app, max_bytes, timeout
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        ended = sent = False

        async def arriving() -> Message:
            nonlocal ended
            message = await receive()
            ended = not message.get("more_body", False)
            return message

        try:
            body = await self._read(scope["path"], Headers(scope=scope), arriving)
        except ApiError as error:
            reply = error_reply(error, scope["path"])
            if ended or error.status == 408:  # nothing more comes, or too slowly
                reply.headers["Connection"] = "close"
                await reply(scope, receive, send)
            else:
                await reply_unread(reply, scope, receive, send)
            return

        async def replay() -> Message:
            """The body at once, then what the connection says: that the client is gone."""
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, path: str, headers: Headers, receive: Receive) -> bytes:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_long()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        binary = _BINARY in headers or (kind != "" and kind == self._media_type)
        # without the right type a page of any other site could send it; tritonclient gives its JSON none
        unnamed = not kind and path.startswith("/v2/")
        if not (binary or unnamed or kind == "application/json" or kind.endswith("+json")):
            raise ApiError(
                415, "not_json", "The body must be JSON; send it with Content-Type: application/json.", None
            )
        try:
            body = await asyncio.wait_for(self._whole(receive), self._timeout)
        except TimeoutError:
            raise ApiError(
                408, "slow_client", f"The body did not come within {self._timeout:g} s; send it faster."
            ) from None
        if not binary:
            try:
                parse_json(body.decode("utf-8"), _MOST_NAMES)
            except (ValueError, RecursionError) as reason:
                raise ApiError(400, "invalid_json", f"The body is not JSON: {one_line(reason)}.") from reason
        return body

    async def _whole(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                raise self._too_long()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_long(self) -> ApiError:
        return ApiError(
            413, "body_too_long", f"The body has more than {self._max_bytes} bytes; send less at once."
        )
