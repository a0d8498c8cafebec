"""`Client`: a server's calls as methods."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import httpx2

from ragengine.errors import ClosedError
from ragengine.messages import one_line
from ragengine.results import Document
from ragengine_serve.client import calls
from ragengine_serve.client.calls import Call
from ragengine_serve.client.replies import EventLines, ServedAnswer, StreamEvent, error_of
from ragengine_serve.errors import ServerError

T = TypeVar("T")


class Client:
    """A client of ``ragengine serve``.  Threads may share it; close it, or use it in a ``with`` block.

    Methods take generation options by name, and ``model``, ``deadline_ms``, ``doc_pruning`` and ``filter``;
    :meth:`answer` also ``adaptive_reading``.
    All raise :class:`ServerError` where the server refuses, fails, or cannot be reached.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        uds: str | None = None,
    ) -> None:
        """Prepare connections; none is opened before the first call.

        Args:
            base_url: where the server is.
            api_key: a key of the server's ``--api-key-file``, or for :meth:`swap_index` of its admin keys.
            timeout: seconds that a call may take.
            uds: path of the server's Unix socket, in the place of an address.
        """
        self._address = uds or base_url
        transport = httpx2.HTTPTransport(uds=uds) if uds else None
        self._http = httpx2.Client(**calls.connection(base_url, api_key, timeout), transport=transport)

    @overload
    def answer(self, question: str, *, documents: Any = None, **settings: Any) -> ServedAnswer: ...
    @overload
    def answer(
        self, question: Sequence[str], *, documents: Any = None, **settings: Any
    ) -> list[ServedAnswer]: ...
    def answer(
        self, question: str | Sequence[str], *, documents: Any = None, **settings: Any
    ) -> ServedAnswer | list[ServedAnswer]:
        """Answer a question, or each of a list.

        Args:
            question: the question, or a list of them.
            documents: :class:`ragengine.Document` to read instead of searching; a list each for a list.
            settings: generation options, ``model``, ``deadline_ms``, ``doc_pruning``, ``filter``,
                ``abstain``.
        """
        return self._call(calls.answer(question, documents, settings))

    def stream(
        self, question: str, *, documents: Sequence[Document] | None = None, **settings: Any
    ) -> Iterator[StreamEvent]:
        """Answer a question token by token: the documents, each token, and at the end the answer.

        Arguments as in :meth:`answer`.  Closing the iterator, or dropping it, cancels the work.
        """
        body, lines = calls.stream(question, documents, settings), EventLines()
        with (
            reached(self),
            self._http.stream("POST", "/v1/answer", **body) as response,
        ):
            if response.status_code != 200:
                raise error_of(response.status_code, response.read(), response.headers.get("retry-after"))
            for line in response.iter_lines():
                if (event := lines.push(line)) is not None:
                    yield event
            lines.end()

    def retrieve(self, question: str | Sequence[str], n_docs: int | None = None, **settings: Any) -> Any:
        """The documents of a question, best first; of a list of questions a list each."""
        return self._call(calls.retrieve(question, n_docs, settings))

    def score(
        self, question: str | Sequence[str], answer: Any, *, documents: Any = None, **settings: Any
    ) -> float | list[float]:
        """log p(y | x) of an answer, text or token ids, in nats; of a list of questions one answer each."""
        return self._call(calls.score(question, answer, documents, settings))

    def classify(
        self,
        question: str,
        labels: Sequence[str],
        *,
        documents: Sequence[Document] | None = None,
        **settings: Any,
    ) -> dict[str, float]:
        """p(label | x) over labels, in their order."""
        return self._call(calls.classify(question, labels, documents, settings))

    def embed(
        self,
        questions: Sequence[str] | None = None,
        *,
        passages: Sequence[Document] | None = None,
        **settings: Any,
    ) -> list[list[float]]:
        """The vectors of questions, or of passages."""
        return self._call(calls.embed(questions, passages, settings))

    def info(self) -> dict[str, Any]:
        """Version, models, default options and limits of the server."""
        return self._call(calls.info())

    def ready(self) -> bool:
        """Whether the server can be reached and takes requests."""
        try:
            with reached(self):
                return self._http.get("/ready").status_code == 200
        except ServerError:
            return False

    def swap_index(self, path: str, *, model: str | None = None) -> dict[str, Any]:
        """Let a model answer from the index at ``path`` below the server's index root; needs an admin key."""
        return self._call(calls.swap_index(path, model))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, call: Call[T]) -> T:
        with reached(self):
            response = self._http.request(call.method, call.path, **call.sent)
        return call.result(response)


@contextlib.contextmanager
def reached(client: Any) -> Iterator[None]:
    """Turn what goes wrong on the way to its server into a :class:`ServerError`; refuse a closed client."""
    if client._http.is_closed:
        raise ClosedError(f"This {type(client).__name__} was closed; make another.")
    address = client._address
    try:
        yield
    except httpx2.TimeoutException as reason:
        raise ServerError(
            f"The server at {address} did not answer in time; allow a longer timeout.", type="timeout"
        ) from reason
    except httpx2.HTTPError as reason:
        raise ServerError(f"The server at {address} cannot be reached: {one_line(reason)}.") from reason
