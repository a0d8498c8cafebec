"""The ASGI application."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ragengine.errors import RagEngineError
from ragengine.retrieval.sharding.remote.wire import MAX_MESSAGE_BYTES, MEDIA_TYPE
from ragengine.version import __version__
from ragengine_serve.api import admin, kserve, native, openai, operations, page, shard
from ragengine_serve.errors import ApiError
from ragengine_serve.http.admission import Admission
from ragengine_serve.http.bodies import BodyLimits
from ragengine_serve.http.observing import Observing
from ragengine_serve.http.replies import api_error, error_reply
from ragengine_serve.state import ServerState

_DESCRIPTION = (
    "Questions answered from documents by RAG (Lewis et al. 2020), with the document behind each token."
)

_SHOWN = 5
"""How many fields of a wrong body are named at most."""


def create_app(state: ServerState) -> FastAPI:
    """The application of a server process.

    From outside to inside a request meets: log and metrics, CORS, keys and readiness, the limits of its body,
    its endpoint.
    """
    app = FastAPI(
        title="ragengine",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        telemetry=state.tracing.fastapi,
        redirect_slashes=False,
    )
    app.state.server = state
    settings = state.settings
    answering = (native, openai, kserve, admin, operations, page)
    for part in answering if settings.shard is None else (shard, operations):
        app.include_router(part.router)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RagEngineError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(
        BodyLimits,
        max_bytes=settings.max_request_bytes if settings.shard is None else MAX_MESSAGE_BYTES,
        timeout=settings.request_timeout,
        media_type=None if settings.shard is None else MEDIA_TYPE,
    )
    app.add_middleware(Admission, state=state)
    if settings.cors_allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_allow_origin),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "traceparent"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    paths = frozenset(
        route.path for route in app.routes if isinstance(route, Route) and "{" not in route.path
    )
    app.add_middleware(Observing, state=state, paths=paths)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, RagEngineError):
        error = api_error(error)
    assert isinstance(error, ApiError)
    return error_reply(error, request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    """A body that is JSON and not what the endpoint takes; nothing of it is repeated."""
    assert isinstance(error, RequestValidationError)
    # Unknown fields first: one may be a typing mistake, for which a field is missing.
    errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    fields: dict[str | None, dict[tuple[str, ...], list[str]]] = {}
    for one in errors:
        place = _place(one["loc"], error.body)
        reasons = fields.setdefault(place[0] if place else None, {}).setdefault(place, [])
        reasons += [one["msg"]] if one["msg"] not in reasons else []
    told = "; ".join(map(_told, list(fields.values())[:_SHOWN]))
    return error_reply(ApiError(422, "invalid_request", f"{told}.", next(iter(fields))), request.url.path)


def _told(places: Mapping[tuple[str, ...], list[str]]) -> str:
    """What is wrong in a field: of the types that it may have, those whose check came furthest."""
    place = max(places, key=len)
    first, *others = places[place]
    reasons = [first, *(other.removeprefix("Input should be ") for other in others)]
    return f"{'.'.join(place) or 'The body'}: {' or '.join(reasons)}"


def _place(location: Sequence[str | int], body: Any) -> tuple[str, ...]:
    """Where in a request an error is, without the names pydantic gives to the alternatives of a field."""
    kind, *parts = location
    if kind != "body":  # of the address
        return tuple(map(str, parts))
    place, inner = [], body
    for part in parts:
        if isinstance(inner, dict) and isinstance(part, str):
            inner = inner.get(part)
        elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
            inner = inner[part]
        else:
            continue
        place.append(f"{part!s:.80}")
    return tuple(place)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    word, message = {
        404: ("not_found", "There is nothing at this path; /docs lists what there is."),
        405: ("wrong_method", "This path does not take this method; /docs lists what there is."),
    }.get(error.status_code, ("invalid_request", "The request cannot be used."))
    reply = error_reply(ApiError(error.status_code, word, message), request.url.path)
    for name, value in (error.headers or {}).items():
        reply.headers[name] = value
    return reply
