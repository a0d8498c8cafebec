"""Waiting for results on behalf of a client, which may go away or have set a deadline."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import Receive

from ragengine_serve.errors import ApiError
from ragengine_serve.http.bodies import ClientGone
from ragengine_serve.scheduling.job import Ticket


async def results(tickets: Sequence[Ticket], deadline: float, receive: Receive) -> list[Any]:
    """The results of all tickets.

    Where this ends without them, for whatever reason, the tickets are given back; work that nobody else waits
    for then stops within one decoding step.

    Args:
        tickets: what to wait for.
        deadline: the event loop's time at which the client wants no answer any more.
        receive: the connection, which says when the client is gone.

    Raises:
        ClientGone: the client hung up.
        ApiError: 504, the deadline has passed.
    """
    async with _gone(receive) as gone, _left(tickets):
        futures = [asyncio.wrap_future(ticket.future) for ticket in tickets]
        together: asyncio.Future[list[Any]] = asyncio.gather(*futures)
        try:
            both: set[asyncio.Future[Any]] = {together, gone}
            await asyncio.wait(
                both,
                timeout=max(0.0, deadline - asyncio.get_running_loop().time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if together.done():
                return together.result()
            if gone.done():
                raise ClientGone
            raise too_late()
        finally:
            for future in futures:
                future.add_done_callback(_looked_at)
            together.add_done_callback(_looked_at)
            together.cancel()


async def events(
    ticket: Ticket, queue: "asyncio.Queue[Any]", deadline: float, receive: Receive
) -> AsyncIterator[Any]:
    """What a streaming job tells through ``queue``, then its result, as ``("final", result)``.

    Raises:
        ClientGone, ApiError: as :func:`results`.
    """
    async with _gone(receive) as gone, _left([ticket]):
        result = asyncio.wrap_future(ticket.future)
        result.add_done_callback(lambda _: queue.put_nowait(None))  # after everything that was told
        while True:
            event = asyncio.ensure_future(queue.get())
            try:
                await asyncio.wait(
                    {event, gone},
                    timeout=max(0.0, deadline - asyncio.get_running_loop().time()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    raise ClientGone
                if not event.done():
                    raise too_late()
                told = event.result()
            finally:
                event.cancel()
            if told is None:
                yield "final", result.result()
                return
            yield told


def too_late() -> ApiError:
    """The error of a request whose deadline has passed."""
    return ApiError(504, "deadline_exceeded", "The deadline has passed; allow more time, or ask for less.")


def _looked_at(future: "asyncio.Future[Any]") -> None:
    """An error that nobody waits for any more is none."""
    if not future.cancelled():
        future.exception()


@contextlib.asynccontextmanager
async def _gone(receive: Receive) -> AsyncIterator["asyncio.Task[None]"]:
    """A task that is done when the client is gone."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(watch())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def _left(tickets: Sequence[Ticket]) -> AsyncIterator[None]:
    """Give the tickets back at the end; of those that have their result nothing changes."""
    try:
        yield
    finally:
        for ticket in tickets:
            ticket.leave()
