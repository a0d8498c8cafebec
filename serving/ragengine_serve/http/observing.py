"""The outermost layer: gives each request an id, and tells log and metrics how it ended."""

import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragengine_serve.errors import ApiError
from ragengine_serve.http.bodies import ClientGone
from ragengine_serve.http.replies import CLIENT_GONE, error_reply, internal_error
from ragengine_serve.observability.logs import log
from ragengine_serve.observability.tracing import trace_id
from ragengine_serve.state import ServerState

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_QUIET = frozenset({"/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
_FACTS = "ragengine.facts"
"""Where endpoints leave what the log shall say of a request: model, questions, timings."""


def note(scope: Scope, **facts: Any) -> None:
    """Leave facts about a request for its line in the log."""
    scope.setdefault(_FACTS, {}).update(facts)


class Observing:
    """ASGI middleware: request ids, one line of log and one measurement a request; nothing escapes it."""

    def __init__(self, app: ASGIApp, *, state: ServerState, paths: frozenset[str]) -> None:
        """``paths`` are the endpoints' that have no variable part: a request that is refused has no route."""
        self._app, self._state, self._paths = app, state, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        started, status, sent = time.perf_counter(), 0, False
        scope[_FACTS] = {}

        async def tell(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                told = MutableHeaders(raw=message.setdefault("headers", []))
                told["X-Request-Id"] = request_id
                told["X-Content-Type-Options"] = "nosniff"
                told.setdefault("Cache-Control", "no-store")
            await send(message)

        self._state.requests_in_flight += 1
        self._state.metrics.in_flight(1)
        try:
            await self._app(scope, receive, tell)
        except ClientGone:
            status = CLIENT_GONE
        except Exception:  # a fault of the server: the client hears of it, and the log has its traceback
            log.exception("A request failed.", extra={"fields": {"request_id": request_id}})
            status = 500
            if not sent:
                await error_reply(internal_error(), scope["path"])(scope, receive, tell)
        finally:
            self._state.requests_in_flight -= 1
            self._state.metrics.in_flight(-1)
            self._ended(scope, request_id, headers, status, time.perf_counter() - started)

    def _ended(self, scope: Scope, request_id: str, headers: Headers, status: int, seconds: float) -> None:
        known = scope["path"] if scope["path"] in self._paths else "other"
        endpoint = getattr(scope.get("route"), "path", None) or known
        facts = scope[_FACTS]
        if isinstance(facts.get("failure"), ApiError):  # of a stream, whose status was sent before
            status = facts["failure"].status
        self._state.metrics.request(endpoint, _outcome(status), seconds)
        questions = facts.get("questions", [])
        shown = questions if self._state.settings.log_questions else f"{len(questions)} redacted"
        fields = {
            "request_id": request_id,
            "trace_id": trace_id(headers.get("traceparent")),
            "method": scope["method"],
            "endpoint": endpoint,
            "status": status,
            "outcome": _outcome(status),
            "milliseconds": round(seconds * 1000, 2),
        }
        fields |= {"questions": shown} if questions else {}
        fields |= {name: facts[name] for name in ("model", "timings_ms", "tokens") if name in facts}
        log.log(10 if scope["path"] in _QUIET else 20, "request", extra={"fields": fields})


def _outcome(status: int) -> str:
    """A word for the metrics: what became of a request."""
    named = {
        400: "invalid", 401: "unauthorized", 404: "not_found", 408: "slow_client", 422: "invalid",
        429: "queue_full", CLIENT_GONE: "client_gone", 503: "unavailable", 504: "deadline",
    }  # fmt: skip
    if status in named:
        return named[status]
    return "success" if status < 400 else "refused" if status < 500 else "failed"
