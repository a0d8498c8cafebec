"""Server-sent events of an answer in the making."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ragengine import GenerationOptions
from ragengine.errors import RagEngineError
from ragengine_serve.api.asking import answer_json, deadline_of, noted, waits
from ragengine_serve.errors import ApiError
from ragengine_serve.http.observing import note
from ragengine_serve.http.replies import api_error, error_body
from ragengine_serve.http.waiting import events
from ragengine_serve.models.served_model import ServedModel
from ragengine_serve.scheduling.job import Task
from ragengine_serve.scheduling.works import Event, Reads, StreamWork
from ragengine_serve.state import ServerState

Parts = AsyncGenerator[tuple[str, Any], None]
"""The names of events and their contents: ``documents``, each ``token``, ``final``."""


@dataclass(frozen=True, eq=False)
class StreamedQuestion:
    """A question whose answer is to be streamed; the options can stream."""

    model: ServedModel
    question: str
    options: GenerationOptions
    reads: Reads
    deadline_ms: int | None


async def answer_parts(request: Request, state: ServerState, asked: StreamedQuestion) -> Parts:
    """Queue the question and wait for its documents; the parts of its answer as JSON values.

    Raises:
        ApiError: before the first part: the queue is full, or the engine refused.
    """
    deadline, loop = deadline_of(state, asked.deadline_ms), asyncio.get_running_loop()
    told: asyncio.Queue[Event | None] = asyncio.Queue()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(told.put_nowait, event)

    work = StreamWork(asked.model.engine, asked.options, asked.reads, tell)
    task = Task(asked.model, work, asked.question, asked.reads.searched(asked.options.n_docs))
    (ticket,) = state.scheduler.submit([task])
    noted(request, [task])

    async def parts() -> Parts:
        try:
            async for name, content in events(ticket, told, deadline, request.receive):
                if name == "documents":
                    yield name, {"documents": [document.to_dict() for document in content]}
                elif name == "token":
                    yield (
                        name,
                        {
                            "id": content.token_id,
                            "text": content.text,
                            "log_prob": content.log_prob,
                            "posterior": content.posterior.tolist(),
                        },
                    )
                else:
                    (queued,) = waits(state, [ticket])
                    yield name, answer_json(request, state, asked.model, content, queued)
        except RagEngineError as error:
            raise api_error(error, ("documents", "filter", "question")) from error

    found = parts()
    return _with_first(await anext(found), found)


async def _with_first(first: tuple[str, Any], rest: Parts) -> Parts:
    try:
        yield first
        async for part in rest:
            yield part
    finally:
        await rest.aclose()


class EventStream(Response):
    """A response of server-sent events, which end when ``lines`` do."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(None, 200, {"X-Accel-Buffering": "no"}, "text/event-stream")
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for line in self._lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            await self._lines.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def event_lines(request: Request, parts: Parts) -> AsyncGenerator[bytes, None]:
    """The parts as events; an error is the last of them."""
    try:
        async for name, content in parts:
            yield event(name, content)
    except ApiError as error:
        yield event("error", failed(request, error))
    finally:
        await parts.aclose()


def failed(request: Request, error: ApiError) -> dict[str, Any]:
    """The content of an error event; log and metrics learn that the request failed after all."""
    note(request.scope, failure=error)
    told: dict[str, Any] = error_body(error)["error"]
    return told


def event(name: str | None, content: Any) -> bytes:
    """A server-sent event."""
    data = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, allow_nan=False)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data}\n\n".encode()
