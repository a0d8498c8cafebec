"""Errors of ragengine as bytes in a column of Ray Data: of an exception Ray would change the message."""

import json

from ragengine import errors
from ragengine.errors import RagEngineError


def packed(error: RagEngineError) -> bytes:
    """The kind of an error and its message, as JSON."""
    return json.dumps({"type": type(error).__name__, "message": str(error)}).encode()


def unpacked(column: bytes) -> RagEngineError:
    """The error of :func:`packed`."""
    content = json.loads(column)
    kind: type[RagEngineError] = getattr(errors, content["type"], RagEngineError)
    return kind(content["message"])
