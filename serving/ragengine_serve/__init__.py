"""The engine as a service: `ragengine serve`, and a typed client of it."""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_serve.client.async_client import AsyncClient
    from ragengine_serve.client.client import Client
    from ragengine_serve.client.replies import Alternative, ServedAnswer, ServedToken
    from ragengine_serve.errors import ServerError

__all__ = ["Alternative", "AsyncClient", "Client", "ServedAnswer", "ServedToken", "ServerError"]

# Imported on first use: the client does without the server's packages, and the server without the client's.
_MODULES = {
    "Alternative": "client.replies",
    "AsyncClient": "client.async_client",
    "Client": "client.client",
    "ServedAnswer": "client.replies",
    "ServedToken": "client.replies",
    "ServerError": "errors",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
