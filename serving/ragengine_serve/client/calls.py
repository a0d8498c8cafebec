"""The calls of a client: what is sent, and what becomes of the response.  Both clients send them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx2

from ragengine.errors import InputError
from ragengine.results import Document
from ragengine_serve.client.replies import ServedAnswer, document_json, document_of, error_of

T = TypeVar("T")


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
            ServerError: it refused, or failed.
        """
        if response.status_code != 200:
            raise error_of(response.status_code, response.content, response.headers.get("retry-after"))
        return self.read(response.json())


def answer(
    question: str | Sequence[str], documents: Any, settings: Mapping[str, Any]
) -> Call[ServedAnswer | list[ServedAnswer]]:
    """``POST /v1/answer``."""
    return Call("POST", "/v1/answer", _one_or_many(ServedAnswer.of), _reading(question, documents, settings))


def stream(question: str, documents: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body of a streamed ``POST /v1/answer``."""
    return _reading(question, documents, settings) | {"stream": True}


def retrieve(
    question: str | Sequence[str], n_docs: int | None, settings: Mapping[str, Any]
) -> Call[list[Document] | list[list[Document]]]:
    """``POST /v1/retrieve``."""
    body = _body(question=_question(question), n_docs=n_docs, **settings)

    def read(found: Any) -> list[Document] | list[list[Document]]:
        lists = [[document_of(d) for d in one["documents"]] for one in _listed(found)]
        return lists if isinstance(found, list) else lists[0]

    return Call("POST", "/v1/retrieve", read, body)


def score(
    question: str | Sequence[str], answer: Any, documents: Any, settings: Mapping[str, Any]
) -> Call[float | list[float]]:
    """``POST /v1/score``."""
    body = _reading(question, documents, settings) | {"answer": answer}
    return Call("POST", "/v1/score", _one_or_many(lambda found: found["log_prob"]), body)


def classify(
    question: str, labels: Sequence[str], documents: Any, settings: Mapping[str, Any]
) -> Call[dict[str, float]]:
    """``POST /v1/classify``."""
    body = _reading(question, documents, settings) | {"labels": list(labels)}
    return Call("POST", "/v1/classify", lambda found: found["probabilities"], body)


def embed(
    questions: Sequence[str] | None, passages: Sequence[Document] | None, settings: Mapping[str, Any]
) -> Call[list[list[float]]]:
    """``POST /v1/embed``."""
    given = None if passages is None else [{"title": p.title, "text": p.text} for p in passages]
    body = _body(question=None if questions is None else list(questions), passages=given, **settings)
    return Call("POST", "/v1/embed", lambda found: found["vectors"], body)


def info() -> Call[dict[str, Any]]:
    """``GET /info``."""
    return Call("GET", "/info", dict)


def swap_index(path: str, model: str | None) -> Call[dict[str, Any]]:
    """``POST /admin/index``."""
    return Call("POST", "/admin/index", dict, _body(path=path, model=model))


def headers(api_key: str | None) -> dict[str, str]:
    """What every request of a client says."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _reading(question: str | Sequence[str], documents: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    given = None
    if documents is not None:
        nested = not isinstance(question, str)
        given = (
            [list(map(document_json, d)) for d in documents]
            if nested
            else list(map(document_json, documents))
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


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _one_or_many(read: Callable[[Any], T]) -> Callable[[Any], T | list[T]]:
    return lambda found: [read(one) for one in found] if isinstance(found, list) else read(found)
