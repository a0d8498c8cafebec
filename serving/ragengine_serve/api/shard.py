"""The calls of a server that has a shard of an index: `docs/reference/shards.md` has the wire format."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ragengine.errors import InputError, RagEngineError
from ragengine.messages import one_line, short_repr
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.wire import MEDIA_TYPE
from ragengine_serve.api.asking import deadline_of
from ragengine_serve.api.schemas import ERRORS
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import JsonReply, api_error
from ragengine_serve.http.waiting import results
from ragengine_serve.scheduling.job import Task
from ragengine_serve.scheduling.works import CallWork
from ragengine_serve.shards.served_shard import CALLS, ServedShard
from ragengine_serve.state import ServerState, state_of

router = APIRouter(tags=["shard"], responses=ERRORS)
State = Depends(state_of)
_BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}, "description": "A message."}}


@router.get(messages.SHARD_PATH)
async def info(state: ServerState = State) -> Response:
    """The fingerprint of the index, and its size."""
    shard = _shard(state)
    return JsonReply(shard.info(), headers={messages.INDEX_HEADER: shard.fingerprint})


@router.post(messages.SHARD_PATH + "/{call}", response_class=Response, responses=_BINARY)
async def ask(call: str, request: Request, state: ServerState = State) -> Response:
    """Candidates for question vectors (``search``), ``passages``, ``vectors``, ``rows-of`` ids and others.

    The scheduler bounds how many run and wait.
    """
    shard = _shard(state)
    if call not in CALLS:
        raise ApiError(
            404,
            "not_found",
            f"A shard is not asked for {short_repr(call)}; there is {', '.join(sorted(CALLS))}.",
        )
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
    body = await request.body()
    tickets = state.scheduler.submit([Task(None, CallWork(lambda: _answer(shard, call, body)))])
    try:
        (found,) = await results(tickets, deadline, request.receive)
    except RagEngineError as error:
        raise api_error(error) from error
    return Response(found, media_type=MEDIA_TYPE, headers={messages.INDEX_HEADER: shard.fingerprint})


def _answer(shard: ServedShard, call: str, body: bytes) -> bytes:
    """What the shard answers; a body that is not the message of that call is an :class:`InputError`."""
    try:
        return shard.answer(call, body)
    except RagEngineError:
        raise
    except ValueError as reason:
        raise InputError(f"The body is not the message that it should be: {one_line(reason)}.") from reason


def _shard(state: ServerState) -> ServedShard:
    assert state.shard is not None  # these calls are there only where it is
    return state.shard
