"""`AsyncClient`: the calls of `Client` for asyncio."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar, overload

import httpx2

from ragengine.results import Document
from ragengine_serve.client import calls
from ragengine_serve.client.calls import Call
from ragengine_serve.client.client import reached
from ragengine_serve.client.replies import EventLines, ServedAnswer, StreamEvent, error_of
from ragengine_serve.errors import ServerError

T = TypeVar("T")


class AsyncClient:
    """:class:`Client` for asyncio: the same methods, to be awaited.  Use it in an ``async with`` block."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        uds: str | None = None,
    ) -> None:
        """Arguments as those of :class:`Client`."""
        self._address = uds or base_url
        transport = httpx2.AsyncHTTPTransport(uds=uds) if uds else None
        self._http = httpx2.AsyncClient(**calls.connection(base_url, api_key, timeout), transport=transport)

    @overload
    async def answer(self, question: str, *, documents: Any = None, **settings: Any) -> ServedAnswer: ...
    @overload
    async def answer(
        self, question: Sequence[str], *, documents: Any = None, **settings: Any
    ) -> list[ServedAnswer]: ...
    async def answer(
        self, question: str | Sequence[str], *, documents: Any = None, **settings: Any
    ) -> ServedAnswer | list[ServedAnswer]:
        """:meth:`Client.answer`."""
        return await self._call(calls.answer(question, documents, settings))

    async def stream(
        self, question: str, *, documents: Sequence[Document] | None = None, **settings: Any
    ) -> AsyncIterator[StreamEvent]:
        """:meth:`Client.stream`, for ``async for``."""
        body, lines = calls.stream(question, documents, settings), EventLines()
        with reached(self):
            async with self._http.stream("POST", "/v1/answer", **body) as response:
                if response.status_code != 200:
                    content = await response.aread()
                    raise error_of(response.status_code, content, response.headers.get("retry-after"))
                async for line in response.aiter_lines():
                    if (event := lines.push(line)) is not None:
                        yield event
                lines.end()

    async def retrieve(
        self, question: str | Sequence[str], n_docs: int | None = None, **settings: Any
    ) -> Any:
        """:meth:`Client.retrieve`."""
        return await self._call(calls.retrieve(question, n_docs, settings))

    async def score(
        self, question: str | Sequence[str], answer: Any, *, documents: Any = None, **settings: Any
    ) -> float | list[float]:
        """:meth:`Client.score`."""
        return await self._call(calls.score(question, answer, documents, settings))

    async def classify(
        self,
        question: str,
        labels: Sequence[str],
        *,
        documents: Sequence[Document] | None = None,
        **settings: Any,
    ) -> dict[str, float]:
        """:meth:`Client.classify`."""
        return await self._call(calls.classify(question, labels, documents, settings))

    async def embed(
        self,
        questions: Sequence[str] | None = None,
        *,
        passages: Sequence[Document] | None = None,
        **settings: Any,
    ) -> list[list[float]]:
        """:meth:`Client.embed`."""
        return await self._call(calls.embed(questions, passages, settings))

    async def info(self) -> dict[str, Any]:
        """:meth:`Client.info`."""
        return await self._call(calls.info())

    async def ready(self) -> bool:
        """:meth:`Client.ready`."""
        try:
            with reached(self):
                return (await self._http.get("/ready")).status_code == 200
        except ServerError:
            return False

    async def swap_index(self, path: str, *, model: str | None = None) -> dict[str, Any]:
        """:meth:`Client.swap_index`."""
        return await self._call(calls.swap_index(path, model))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _call(self, call: Call[T]) -> T:
        with reached(self):
            response = await self._http.request(call.method, call.path, **call.sent)
        return call.result(response)
