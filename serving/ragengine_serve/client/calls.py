"""The calls of a client: what is sent, and what becomes of the response.  Both clients send them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx2

from ragengine.errors import InputError
from ragengine.messages import one_line, short_repr
from ragengine.results import Document
from ragengine.runtime.cancellation import is_finite_number
from ragengine.validation import as_list
from ragengine_serve.client.replies import ServedAnswer, document_json, document_of, error_of, no_answer
from ragengine_serve.client.replies import parsed as parsed_json

T = TypeVar("T")

_KEY = re.compile(r"[!-~]+")
_LISTS = "a list of Document for each question"


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its JSON becomes a result."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None

    def result(self, response: httpx2.Response) -> T:
        """What the server answered.

        Raises:
            ServerError: it refused, failed, or is another kind of server.
        """
        if response.status_code != 200:
            raise error_of(response.status_code, response.content, response.headers.get("retry-after"))
        with no_answer():
            return self.read(parsed_json(response.content))

    @property
    def sent(self) -> dict[str, Any]:
        """The body and its type, as httpx takes them."""
        return {} if self.body is None else sent(self.body)


def answer(
    question: str | Sequence[str], documents: Any, settings: Mapping[str, Any]
) -> Call[ServedAnswer | list[ServedAnswer]]:
    """``POST /v1/answer``."""
    read = _one_or_many(ServedAnswer.of, question)
    return Call("POST", "/v1/answer", read, _reading(question, documents, settings))


def stream(question: str, documents: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a streamed ``POST /v1/answer``, as httpx takes it."""
    return sent(_reading(question, documents, settings) | {"stream": True})


def retrieve(question: str | Sequence[str], n_docs: int | None, settings: Mapping[str, Any]) -> Call[Any]:
    """``POST /v1/retrieve``."""
    body = _body(question=_question(question), n_docs=n_docs, **settings)

    def read(found: Any) -> list[Document]:
        return [document_of(d) for d in found["documents"]]

    return Call("POST", "/v1/retrieve", _one_or_many(read, question), body)


def score(
    question: str | Sequence[str], answer: Any, documents: Any, settings: Mapping[str, Any]
) -> Call[float | list[float]]:
    """``POST /v1/score``."""
    body = _reading(question, documents, settings) | {"answer": answer}
    return Call("POST", "/v1/score", _one_or_many(lambda found: found["log_prob"], question), body)


def classify(
    question: str, labels: Sequence[str], documents: Any, settings: Mapping[str, Any]
) -> Call[dict[str, float]]:
    """``POST /v1/classify``."""
    body = _reading(question, documents, settings) | {
        "labels": as_list(labels, "labels", "a list of strings")
    }
    return Call("POST", "/v1/classify", lambda found: found["probabilities"], body)


def embed(
    questions: Sequence[str] | None, passages: Sequence[Document] | None, settings: Mapping[str, Any]
) -> Call[list[list[float]]]:
    """``POST /v1/embed``."""
    given = None if passages is None else [{"title": p.title, "text": p.text} for p in _documents(passages)]
    asked = None if questions is None else as_list(questions, "questions", "a list of strings")
    body = _body(question=asked, passages=given, **settings)
    return Call("POST", "/v1/embed", lambda found: found["vectors"], body)


def info() -> Call[dict[str, Any]]:
    """``GET /info``."""
    return Call("GET", "/info", _object)


def swap_index(path: str, model: str | None) -> Call[dict[str, Any]]:
    """``POST /admin/index``."""
    return Call("POST", "/admin/index", _object, _body(path=path, model=model))


def connection(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """How httpx is to connect.

    Raises:
        InputError: one of them cannot be used; a key is not repeated.
    """
    try:
        url = httpx2.URL(base_url)
    except (TypeError, ValueError, httpx2.InvalidURL):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(
            f"base_url is {short_repr(base_url)}; it must be an address such as http://127.0.0.1:8000."
        )
    if api_key is not None and not (isinstance(api_key, str) and _KEY.fullmatch(api_key)):
        raise InputError("api_key must be a text of printable ASCII characters, without spaces, or None.")
    if not is_finite_number(timeout) or timeout <= 0:
        raise InputError(f"timeout is {short_repr(timeout)}; it must be a number of seconds above 0.")
    told = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return {"base_url": url, "headers": told, "timeout": float(timeout)}


def sent(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body and its type, as httpx takes them.

    Raises:
        InputError: it holds what JSON cannot.
    """
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as reason:
        raise InputError(
            f"The request cannot be sent as JSON ({one_line(reason)}); give texts, finite Python numbers, "
            "and lists of these."
        ) from reason
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def _reading(question: str | Sequence[str], documents: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    given = None
    if documents is not None:
        nested = not isinstance(question, str)
        given = (
            [list(map(document_json, _documents(d))) for d in as_list(documents, "documents", _LISTS)]
            if nested
            else list(map(document_json, _documents(documents)))
        )
    return _body(question=_question(question), documents=given, **settings)


def _question(question: Any) -> str | list[str]:
    if isinstance(question, str):
        return question
    if isinstance(question, Sequence) and all(isinstance(one, str) for one in question):
        return list(question)
    raise InputError(f"A question is {type(question).__name__}; it must be a str, or a list of them.")


def _body(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _documents(given: Any) -> list[Document]:
    documents = as_list(given, "documents", "a list of Document")
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(f"Document {place} is {type(document).__name__}; it must be a Document.")
    return documents


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError
    return found


def _one_or_many(read: Callable[[Any], T], question: Any) -> Callable[[Any], T | list[T]]:
    """Reads an object for a question, or as many as there are in a list."""

    def read_all(found: Any) -> T | list[T]:
        if isinstance(question, str):
            return read(found)
        if not isinstance(found, list) or len(found) != len(question):
            raise TypeError
        return [read(one) for one in found]

    return read_all
