"""A deadline or a cancellation ends a call between two steps, frees everything, and the engine goes on."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragengine import RagEngine, Stop
from ragengine.errors import CancelledError, DeadlineError, InputError
from ragengine.generation.decoders.base import EncodedDocuments
from ragengine.generation.model import GeneratorModel
from ragengine.pipeline.prepared import Asked
from ragengine.pipeline.stages import Wanted
from ragengine_bench.parity.pairs import Pair
from tests.support.ids import stable_repr

LONG: dict[str, Any] = {"max_length": 60, "min_length": 59, "num_beams": 3}
Call = Callable[..., Any]


def calls(engine: RagEngine, question: str) -> dict[str, Call]:
    """Every call that takes a deadline."""
    arrays = _arrays(engine, question, 2)
    options = engine.default_options
    labels = arrays[0][0, :1, :3]
    return {
        "generate": lambda **stop: engine.generate(question, **stop),
        "generate, several": lambda **stop: engine.generate([question] * 3, **stop),
        "generate, thorough": lambda **stop: engine.generate(question, marginalize="sequence", **stop),
        "stream": lambda **stop: list(engine.stream(question, num_beams=1, **stop)),
        "retrieve": lambda **stop: engine.retrieve(question, **stop),
        "score": lambda **stop: engine.score(question, "yes", **stop),
        "classify": lambda **stop: engine.classify(question, ["yes", "no"], **stop),
        "Generator.generate": lambda **stop: engine.generator.generate(*arrays, options, **stop),
        "Generator.forward": lambda **stop: engine.generator.forward(*arrays, labels, **stop),
        "Generator.score": lambda **stop: engine.generator.score(*arrays, labels, **stop),
    }


def _arrays(engine: RagEngine, question: str, n_docs: int) -> Any:
    """What `Generator` takes for a question and its documents."""
    contexts = engine._stages.prompts(Asked.one(question), Wanted(n_docs), Stop()).contexts
    return contexts.input_ids, contexts.attention_mask, contexts.log_prior


NAMES = [
    "generate", "generate, several", "generate, thorough", "stream", "retrieve", "score", "classify",
    "Generator.generate", "Generator.forward", "Generator.score",
]  # fmt: skip


@pytest.fixture
def question(pair: Pair) -> str:
    return pair.questions(7, 1)[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_call_ends_at_its_deadline_or_when_cancelled(pair: Pair, question: str, name: str) -> None:
    call = calls(pair.engine, question)[name]
    with pytest.raises(DeadlineError, match=r"^The deadline of 1e-09 s passed .*; allow more time"):
        call(deadline=1e-9)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError, match=r"^The call was cancelled "):
        call(cancel=cancelled)
    call(deadline=1000.0, cancel=threading.Event())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "stop",
    [{"deadline": 0}, {"deadline": -1}, {"deadline": float("nan")}, {"deadline": float("inf")},
     {"deadline": True}, {"deadline": "1"}, {"cancel": 1}, {"cancel": "yes"},
     {"deadline": Stop(), "cancel": threading.Event()}],
    ids=stable_repr,
)  # fmt: skip
def test_invalid_deadlines_and_cancellations_are_refused(
    pair: Pair, question: str, name: str, stop: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"^(deadline|cancel) is .*"):
        calls(pair.engine, question)[name](**stop)


def test_a_deadline_changes_no_answer(pair: Pair, question: str) -> None:
    plain, timed = pair.engine.generate(question), pair.engine.generate(question, deadline=1000)
    assert (plain.text, plain.score) == (timed.text, timed.score)


def test_it_stops_between_steps_and_states_their_number(pair: Pair, question: str) -> None:
    cancel, seen = threading.Event(), []

    def allowed(number: int, tokens: np.ndarray) -> range:
        seen.append(len(tokens))
        if len(tokens) == 5:
            cancel.set()
        return range(5, 40)

    with pytest.raises(CancelledError, match=r"^The call was cancelled after 4 tokens\.$"):
        pair.engine.generate(question, prefix_allowed_tokens_fn=allowed, cancel=cancel, **LONG)
    assert max(seen) == 5


def test_another_thread_ends_a_call_in_time(pair: Pair, question: str) -> None:
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        pair.engine.generate([question] * 5000, cancel=cancel, **LONG)
    assert time.monotonic() - began < 20


def test_a_stream_ends_while_it_runs(pair: Pair, question: str) -> None:
    cancel = threading.Event()
    options = {"num_beams": 1, "max_length": 40, "min_length": 39}
    stream = pair.engine.stream(question, cancel=cancel, **options)
    next(stream)
    cancel.set()
    with pytest.raises(CancelledError):
        list(stream)
    assert len(list(pair.engine.stream(question, **options))) == 39


def test_one_stop_for_several_calls(pair: Pair, question: str) -> None:
    cancel = threading.Event()
    stop = Stop(1000, cancel)
    documents = pair.engine.retrieve(question, deadline=stop)
    pair.engine.generate(question, documents=documents, deadline=stop)
    cancel.set()
    with pytest.raises(CancelledError):
        pair.engine.score(question, "yes", documents=documents, deadline=stop)


@pytest.mark.parametrize("decoder", ["dynamic", "static"])
def test_a_cancelled_call_frees_its_memory(pair: Pair, question: str, decoder: Any) -> None:
    """Neither the documents' keys and values nor the self-attention cache stay in memory."""
    generator = pair.generator()
    generator._model = GeneratorModel(generator.bundle, device="cpu", decoder=decoder)
    arrays = _arrays(pair.engine, question, 3)
    options = generator.default_options.replace(max_length=60, min_length=59)
    gc.collect()
    before = _alive()
    for _ in range(5):
        cancel = threading.Event()

        def allowed(number: int, tokens: np.ndarray, cancel: threading.Event = cancel) -> range:
            if len(tokens) == 3:
                cancel.set()
            return range(5, 40)

        with pytest.raises(CancelledError):
            generator.generate(*arrays, options, prefix_allowed_tokens_fn=allowed, cancel=cancel)
    assert _alive() == before
    assert generator.generate(*arrays, options)


def _alive() -> int:
    return sum(type(thing) is EncodedDocuments for thing in gc.get_objects())
