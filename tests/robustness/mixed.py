"""Valid and invalid requests of every kind, whose outcomes can be compared bit for bit."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ragengine import AnswerToken, Document, RagEngine, RagEngineError

Job: TypeAlias = Callable[[RagEngine], Any]
SHORT = {"max_length": 10, "n_docs": 3}
SEQUENCE = {**SHORT, "marginalize": "sequence"}
OWN = [
    Document("Lima", "Lima is the capital of Peru.", id="l"),
    Document("Oslo", "Oslo is in Norway.", id="o"),
]
SCORED = [dataclasses.replace(d, score=s) for d, s in zip(OWN, (0.5, 0.25), strict=True)]


class Broken(Exception):
    """Raised by a callback of these requests."""


def jobs(questions: Sequence[str], *, passage_encoder: bool = False) -> dict[str, Job]:
    """Requests by name.  ``passage_encoder`` adds one whose documents are scored first."""
    first, second, *_ = questions
    several = list(questions[:3])
    found: dict[str, Job] = {
        "greedy": lambda e: e.generate(first, **SHORT, num_beams=1),
        "beams": lambda e: e.generate(second, **SHORT, num_beams=4, num_return_sequences=3),
        "batch": lambda e: e.generate(several, **SHORT, num_beams=2),
        "pruned": lambda e: e.generate(first, **SHORT, num_beams=2, doc_pruning=0.3),
        "n-grams": lambda e: e.generate(first, **SHORT, num_beams=3, no_repeat_ngram_size=1),
        "sampled": lambda e: e.generate(second, **SHORT, num_beams=1, do_sample=True, seed=7),
        "beams sampled": lambda e: e.generate(second, **SHORT, num_beams=3, do_sample=True, seed=8),
        "thorough": lambda e: e.generate(first, **SEQUENCE, num_beams=2, search="thorough"),
        "fast": lambda e: e.generate(several, **SEQUENCE, num_beams=2, search="fast"),
        "joint": lambda e: e.generate(second, **SEQUENCE, num_beams=3, search="joint"),
        "allowed": lambda e: e.generate(first, **SHORT, num_beams=2, prefix_allowed_tokens_fn=_few),
        "streamed": lambda e: list(e.stream(first, **SHORT, num_beams=1, marginalize="token")),
        "streamed jointly": lambda e: list(e.stream(second, **SEQUENCE, num_beams=1, search="joint")),
        "stream left": lambda e: _left(e, first),
        "own documents": lambda e: e.generate(first, **SHORT, num_beams=2, documents=SCORED),
        "score": lambda e: e.score([first, second], [" Lima", " Oslo"], n_docs=3),
        "classify": lambda e: e.classify(second, [" yes", " no", " maybe"], n_docs=2),
        "retrieve": lambda e: e.retrieve(first, n_docs=4),
        "search": lambda e: e.retriever.search_vectors(_vectors(e), 3),
        "generator": _generator,
        "no string": lambda e: e.generate(3),
        "no beams": lambda e: e.generate(first, num_beams=0),
        "no documents": lambda e: e.generate(first, documents=[]),
        "surrogate": lambda e: e.retrieve("\ud800"),
        "no answer": lambda e: e.score([first], [" Lima", " Oslo"]),
        "beams streamed": lambda e: e.stream(first, num_beams=2),
        "callback fails": lambda e: e.generate(first, **SHORT, prefix_allowed_tokens_fn=_fails),
    }
    if passage_encoder:
        found["unscored documents"] = lambda e: e.generate(first, **SHORT, num_beams=2, documents=OWN)
    return found


def outcome(job: Job, engine: RagEngine) -> Any:
    """The result of a request, or its error, comparable with ``==``."""
    try:
        return exactly(job(engine))
    except (RagEngineError, Broken) as error:
        return type(error).__name__, str(error)


def exactly(value: Any) -> Any:
    """``value`` without timings, and with arrays as bytes: equal only if every bit is."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value) if field.name != "timings_ms")
        return type(value).__name__, *(exactly(getattr(value, name)) for name in names)
    if isinstance(value, Mapping):
        return tuple((name, exactly(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(exactly, value))
    return value


def _few(question: int, tokens: np.ndarray) -> list[int]:
    return [2, 5, 9, 11, 12]


def _fails(question: int, tokens: np.ndarray) -> list[int]:
    if len(tokens) > 2:
        raise Broken("a callback failed")
    return [5, 6, 7]


def _left(engine: RagEngine, question: str) -> AnswerToken:
    """The first token of a stream that is then dropped."""
    return next(engine.stream(question, **SHORT, num_beams=1, marginalize="token"))


def _vectors(engine: RagEngine) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((4, engine.retriever.index.dimension)).astype(np.float32)


def _generator(engine: RagEngine) -> Any:
    """A direct call of the engine's generator."""
    ids = np.arange(5, 5 + 2 * 3 * 6).reshape(2, 3, 6)
    scores = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    options = engine.default_options.replace(max_length=8, num_beams=2)
    return engine.generator.generate(ids, np.ones_like(ids), scores, options)
