"""Who may ask what, and when: before a body is read or anything is computed."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import error_reply
from ragengine_serve.http.unread import reply_unread
from ragengine_serve.state import ServerState

_OPEN = frozenset({"/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})
"""What needs no key: it tells how the server is, and nothing of its models."""


class Admission:
    """ASGI middleware: 401 without a key, 404 where /admin is off, 503 while loading or draining."""

    def __init__(self, app: ASGIApp, *, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope)) is not None:
            reply = error_reply(error, scope["path"])
            if scope["method"] in ("GET", "HEAD"):
                await reply(scope, receive, send)
            else:
                await reply_unread(reply, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        path: str = scope["path"]
        if path in _OPEN or path.startswith(("/page/", "/v2/health/")):
            return None
        admin = path == "/admin" or path.startswith("/admin/")
        keys = self._state.admin_keys if admin else self._state.api_keys
        if admin and keys is None:
            return ApiError(
                404, "not_found", "There is no /admin here; start the server with --admin-key-file."
            )
        if keys is not None and not keys.allow(Headers(scope=scope)):
            return ApiError(
                401, "unauthorized", "The key is missing or wrong; send Authorization: Bearer KEY.", None
            )
        if self._state.draining:
            return ApiError(
                503, "draining", "The server is shutting down; ask another, or later.", retry_after=1
            )
        if not self._state.models.loaded:
            return ApiError(
                503, "loading", "The server is loading its models; ask again later.", retry_after=1
            )
        return None
