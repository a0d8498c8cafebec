"""JSON responses, and errors as clients see them."""

import base64
import hashlib
import json
import re
from typing import Any

from starlette.responses import Response

from ragengine.errors import (
    CancelledError,
    ClosedError,
    DeadlineError,
    GraphOutputError,
    IndexFolderError,
    InputError,
    MemoryLimitError,
    OptionsError,
    RagEngineError,
    ShardError,
    UnavailableError,
)
from ragengine.messages import shown
from ragengine_serve.errors import ApiError

CLIENT_GONE = 499
"""The status in logs and metrics of a request whose client went away; nothing is sent."""
_STATUSES: tuple[tuple[type[RagEngineError], int, str], ...] = (
    (OptionsError, 400, "invalid_options"),
    (InputError, 400, "invalid_input"),
    (MemoryLimitError, 400, "too_much_memory"),
    (DeadlineError, 504, "deadline_exceeded"),
    (CancelledError, 503, "cancelled"),
    (ClosedError, 503, "draining"),
    (ShardError, 503, "shard_unavailable"),
    (UnavailableError, 503, "unavailable"),
    (IndexFolderError, 500, "index_error"),
    (GraphOutputError, 500, "model_error"),
)


class JsonReply(Response):
    """A response of JSON in UTF-8 that holds no NaN."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def api_error(error: RagEngineError, fields: tuple[str, ...] = ()) -> ApiError:
    """An error of the engine as clients see it; ``fields`` are those that the request gave."""
    for kind, status, word in _STATUSES:
        if isinstance(error, kind):
            message = str(error)
            named = [name for name in fields if re.search(rf"\b{re.escape(name)}\b", message)]
            field = named[0] if named and status == 400 else None
            return ApiError(status, word, message, field, retry_after=1 if status == 503 else None)
    return internal_error()


def internal_error() -> ApiError:
    """What a client is told of a fault that is not its own."""
    return ApiError(500, "internal", "The server failed on this request; its log says why.")


def error_reply(error: ApiError, path: str = "/") -> JsonReply:
    """The response of an error, in the shape that the clients of ``path`` expect."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonReply(error_body(error, path), error.status, headers)


def error_body(error: ApiError, path: str = "/") -> dict[str, Any]:
    """``{"error": {type, message, field}}``; ``param`` and ``code`` are OpenAI's names.

    KServe's clients take the message itself.
    """
    message = shown(error.message)
    if path.startswith("/v2"):
        return {"error": message, "type": error.type, "field": error.field}
    told = {"type": error.type, "message": message, "field": error.field}
    return {"error": told | {"param": error.field, "code": error.type}}


def script_policy(page: str) -> str:
    """The Content-Security-Policy of a page: its own inline scripts and styles, and calls to this server."""
    scripts, styles = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"
            for text in re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src {scripts or chr(39) + 'none' + chr(39)}; "
        f"style-src {styles or chr(39) + 'none' + chr(39)}; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
