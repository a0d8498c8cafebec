"""What a server answers, as Python objects."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragengine.results import Citation, Document
from ragengine.storage.strict_json import parse_json
from ragengine_serve.errors import ServerError

_SECONDS = re.compile(r"[0-9]{1,9}")
_NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a response raises that is other than it should be."""


@dataclass(frozen=True)
class ServedToken:
    """A token of an answer.

    text       what the answer grows by
    log_prob   log p(y_t | x, y_<t), in nats
    posterior  p(z | x, y_<=t) over the answer's documents
    """

    id: int
    text: str
    log_prob: float | None
    posterior: tuple[float, ...]


@dataclass(frozen=True)
class Alternative:
    """One output of the search; the first is the answer."""

    text: str
    score: float | None
    log_prob: float | None


@dataclass(frozen=True)
class ServedAnswer:
    """An answer with where it came from: `ragengine.Answer` as it comes over the network.

    text        "" where it was withheld
    documents   those that were read, in the order of the posteriors
    pruned      those that ``doc_pruning`` left out
    timings_ms  milliseconds a stage took, first the time in the queue
    notes       a sentence for each flag
    citations   the sentences that the answer's words are copied from
    confidence  the probability that the answer is right; None where the index is not calibrated for it
    missing_shards  parts of the index that did not answer, and were allowed not to
    answerability  the probability that the documents hold an answer, by the same
    """

    question: str
    text: str
    score: float | None
    log_prob: float | None
    documents: tuple[Document, ...]
    tokens: tuple[ServedToken, ...]
    flags: tuple[str, ...]
    hypotheses: tuple[Alternative, ...]
    pruned: tuple[Document, ...]
    timings_ms: Mapping[str, float]
    notes: tuple[str, ...]
    citations: tuple[Citation, ...] = ()
    confidence: float | None = None
    answerability: float | None = None
    missing_shards: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "ServedAnswer":
        """The answer in the server's JSON."""
        return cls(
            question=content["question"],
            text=content["answer"],
            score=content["score"],
            log_prob=content["log_prob"],
            documents=tuple(map(document_of, content["documents"])),
            tokens=tuple(map(token_of, content["tokens"])),
            flags=tuple(content["flags"]),
            hypotheses=tuple(
                Alternative(found["answer"], found["score"], found["log_prob"])
                for found in content["hypotheses"]
            ),
            pruned=tuple(map(document_of, content["pruned_documents"])),
            timings_ms=content["timings_ms"],
            notes=tuple(content["notes"]),
            citations=tuple(Citation(**citation) for citation in content["citations"]),
            confidence=content["confidence"],
            answerability=content["answerability"],
            missing_shards=tuple(content.get("missing_shards", ())),
        )


StreamEvent: TypeAlias = tuple[Document, ...] | ServedToken | ServedAnswer
"""What a stream gives: first the documents, then each token, last the answer."""


def document_of(content: Mapping[str, Any]) -> Document:
    """A document in the server's JSON."""
    return Document(
        title=content["title"],
        text=content["text"],
        id=content["id"],
        score=content["doc_score"],
        prior=content["prior"],
        posterior=content["posterior"],
        metadata=content["metadata"],
    )


def token_of(content: Mapping[str, Any]) -> ServedToken:
    """A token in the server's JSON."""
    return ServedToken(content["id"], content["text"], content["log_prob"], tuple(content["posterior"]))


def event_of(name: str, data: str) -> StreamEvent:
    """An event of a stream.

    Raises:
        ServerError: it is an error, or none of ragengine's.
    """
    with no_answer():
        content = parse_json(data)
        if name == "documents":
            return tuple(map(document_of, content["documents"]))
        if name == "token":
            return token_of(content)
        if name == "final":
            return ServedAnswer.of(content)
        error = ServerError(content["message"], status=200, type=content["type"], field=content["field"])
    raise error


class EventLines:
    """Puts the lines of a stream together to events."""

    def __init__(self) -> None:
        self._name, self._data = "", ""
        self._answered = False

    def push(self, line: str) -> StreamEvent | None:
        """The event that ``line`` ends, if it ends one."""
        if line.startswith("event: "):
            self._name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            self._data = line.removeprefix("data: ")
        elif not line and self._name:
            name, self._name = self._name, ""
            event = event_of(name, self._data)
            self._answered = isinstance(event, ServedAnswer)
            return event
        return None

    def end(self) -> None:
        """The stream has ended; raises :class:`ServerError` where that was before its answer."""
        if not self._answered:
            raise ServerError(
                "The stream ended before its answer: the server, or a proxy, broke it off; ask again.",
                type="connection",
            )


def error_of(status: int, body: bytes, retry_after: str | None) -> ServerError:
    """The error of a response that is none of a success."""
    seconds = int(retry_after) if retry_after is not None and _SECONDS.fullmatch(retry_after) else None
    try:
        fault = parsed(body)["error"]
        return ServerError(
            fault["message"], status=status, type=fault["type"], field=fault["field"], retry_after=seconds
        )
    except _NO_ANSWER:
        return ServerError(
            f"The server answered {status} without saying why.",
            status=status,
            type="http",
            retry_after=seconds,
        )


def parsed(body: bytes) -> Any:
    """The JSON of a body; raises what :func:`no_answer` waits for."""
    return parse_json(body.decode("utf-8"))


@contextlib.contextmanager
def no_answer() -> Iterator[None]:
    """Turn what goes wrong while a response is read into a :class:`ServerError`."""
    try:
        yield
    except _NO_ANSWER as reason:
        raise ServerError(
            "The server's response is none of ragengine's; check the address, and what is between.",
            status=200,
            type="http",
        ) from reason


def document_json(document: Document) -> dict[str, Any]:
    """A document of the caller's own as the server takes it."""
    content: dict[str, Any] = {"title": document.title, "text": document.text, "id": document.id}
    if document.metadata:
        content["metadata"] = dict(document.metadata)
    return content if document.score is None else content | {"score": document.score}
