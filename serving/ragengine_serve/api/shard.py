"""The calls of a server that has a shard of an index: `docs/reference/shards.md` has the wire format."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ragengine.errors import InputError, RagEngineError
from ragengine.messages import one_line
from ragengine.sharding.remote import messages
from ragengine.sharding.remote.shard import INFO_PATH
from ragengine.sharding.remote.wire import MEDIA_TYPE
from ragengine_serve.api.asking import deadline_of
from ragengine_serve.api.schemas import ERRORS
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import JsonReply, api_error
from ragengine_serve.http.waiting import results
from ragengine_serve.scheduling.job import Task
from ragengine_serve.scheduling.works import CallWork
from ragengine_serve.shards.served_shard import ServedShard
from ragengine_serve.state import ServerState, state_of

router = APIRouter(tags=["shard"], responses=ERRORS)
State = Depends(state_of)
_BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}, "description": "A message."}}


@router.get(INFO_PATH)
async def info(state: ServerState = State) -> Response:
    """The fingerprint of the index, its size, and the limits of a request."""
    shard = _shard(state)
    content = {**shard.info(), "max_request_bytes": state.settings.max_request_bytes}
    return JsonReply(content, headers={messages.INDEX_HEADER: shard.fingerprint})


@router.post(messages.SEARCH_PATH, response_class=Response, responses=_BINARY)
async def search(request: Request, state: ServerState = State) -> Response:
    """Candidates for question vectors: rows, what FAISS scored them, and their scores."""
    shard, body = _shard(state), await request.body()

    def call() -> bytes:
        return messages.search_reply(shard.propose(*messages.read_search_request(body)))

    return await _answered(request, state, call)


@router.post(messages.PASSAGES_PATH, response_class=Response, responses=_BINARY)
async def passages(request: Request, state: ServerState = State) -> Response:
    """The passages of rows."""
    shard, body = _shard(state), await request.body()

    def call() -> bytes:
        return messages.passages_reply(shard.passages(messages.read_passages_request(body)))

    return await _answered(request, state, call)


@router.post(messages.MATCHING_PATH, response_class=Response, responses=_BINARY)
async def matching(request: Request, state: ServerState = State) -> Response:
    """How many passages match a filter."""
    shard, body = _shard(state), await request.body()

    def call() -> bytes:
        return messages.matching_reply(shard.count_matching(messages.read_matching_request(body)))

    return await _answered(request, state, call)


async def _answered(request: Request, state: ServerState, call: Callable[[], bytes]) -> Response:
    """The message that ``call`` makes in a thread of the scheduler, which bounds how many run and wait.

    Raises:
        ApiError: 409, another index was asked for; 400, the request cannot be used; as for other calls.
    """
    shard = _shard(state)
    asked = request.headers.get(messages.INDEX_HEADER)
    if asked is not None and asked != shard.fingerprint:
        raise ApiError(
            409,
            "other_index",
            f"This server has the index {shard.fingerprint[:12]}, and another one was asked for; "
            "load the engine again, or start the server with that index.",
        )
    given = request.headers.get(messages.DEADLINE_HEADER, "")
    deadline = deadline_of(state, int(given) if given.isdecimal() and len(given) < 10 else None)
    tickets = state.scheduler.submit([Task(None, CallWork(_checked(call)))])
    try:
        (body,) = await results(tickets, deadline, request.receive)
    except RagEngineError as error:
        raise api_error(error) from error
    return Response(body, media_type=MEDIA_TYPE, headers={messages.INDEX_HEADER: shard.fingerprint})


def _checked(call: Callable[[], bytes]) -> Callable[[], bytes]:
    """``call``, with a body that is no message as an :class:`InputError`."""

    def checked() -> bytes:
        try:
            return call()
        except RagEngineError:
            raise
        except ValueError as reason:
            raise InputError(
                f"The body is not the message that it should be: {one_line(reason)}."
            ) from reason

    return checked


def _shard(state: ServerState) -> ServedShard:
    assert state.shard is not None  # these calls are there only where it is
    return state.shard
