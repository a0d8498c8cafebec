"""Answering a request before its body has come."""

import asyncio

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

_SECONDS, _BYTES = 5, 64 * 2**20


async def reply_unread(reply: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response at once, and hang up when the body has come, which nobody reads.

    A connection that is closed while its client still sends is reset, and most clients then lose the
    response.  So what comes is thrown away, for a few seconds and megabytes.
    """
    reply.headers["Connection"] = "close"

    async def send_and_wait(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        await _discard(receive)
        await send({"type": "http.response.body", "body": b""})

    await reply(scope, receive, send_and_wait)


async def _discard(receive: Receive) -> None:
    left = _BYTES
    try:
        async with asyncio.timeout(_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):  # the end, or the client is gone
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
