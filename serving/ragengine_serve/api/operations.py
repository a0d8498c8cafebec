"""How the server is: health, readiness, what it serves, metrics, and its reference."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ragengine.version import __version__
from ragengine_serve.api.reference import reference_page
from ragengine_serve.api.schemas import ERRORS, Health
from ragengine_serve.http.replies import JsonReply, script_policy
from ragengine_serve.state import ServerState, state_of

router = APIRouter(tags=["operations"])
State = Depends(state_of)


@router.get("/health", response_model=Health)
async def health() -> Response:
    """The process lives."""
    return JsonReply({"status": "ok"})


@router.get("/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(state: ServerState = State) -> Response:
    """The models are loaded and warm, and requests are taken; 503 before that and while draining."""
    status = readiness(state)
    return JsonReply({"status": status}, 200 if status == "ok" else 503)


@router.get("/info", responses={status: ERRORS[status] for status in (401, 503)})
async def info(state: ServerState = State) -> Response:
    """Version, models with their fingerprints and default options, and the limits of a request."""
    settings = state.settings
    limits = (
        "max_n_docs", "max_num_beams", "max_new_tokens", "max_questions", "max_request_bytes", "max_queue",
        "default_deadline_ms",
    )  # fmt: skip
    content: dict[str, Any] = {
        "version": __version__,
        "models": [model.info() for model in state.models],
        "limits": {name: getattr(settings, name) for name in limits},
        "workers": settings.workers,
        "threads": settings.graph_threads,
        "max_concurrent_requests": settings.executors,
    }
    return JsonReply(content)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(state: ServerState = State) -> Response:
    """Prometheus metrics of all workers."""
    return Response(state.metrics.render(state.models), media_type="text/plain; version=0.0.4")


@router.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> Response:
    """The reference of all calls, made of the OpenAPI document."""
    content = reference_page(request.app.openapi())
    headers = {"Content-Security-Policy": script_policy(content), "Referrer-Policy": "no-referrer"}
    return HTMLResponse(content, headers=headers)


def readiness(state: ServerState) -> str:
    """``ok``, ``loading`` or ``draining``."""
    if state.draining:
        return "draining"
    return "ok" if state.models.loaded else "loading"
