"""Closing once or repeatedly, from any thread; use after it; interrupts and process end meanwhile."""

import gc
import itertools
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Generator, RagEngine, Retriever
from ragengine.errors import ClosedError
from ragengine.retrieval.index import PassageIndex
from ragengine_bench.parity.pairs import Pair
from tests.robustness.mixed import OWN, SCORED, SHORT, jobs, outcome
from tests.support.paths import WORLDFACTS

QUESTION = "where is Lima"


def load(pair: Pair) -> RagEngine:
    return RagEngine.load(pair.bundle, index=index_of(pair), device="cpu", threads=2)


def index_of(pair: Pair) -> Path:
    return pair.engine.retriever.index.path


@pytest.fixture
def engine(pair: Pair) -> Iterator[RagEngine]:
    with load(pair) as engine:
        yield engine


@pytest.fixture(scope="module")
def expected(pair: Pair) -> Any:
    """The answer of an uninterrupted engine."""
    return outcome(ask, pair.engine)


def ask(engine: RagEngine) -> Any:
    return engine.generate(QUESTION, **SHORT, num_beams=2)


def test_after_close_every_call_says_so(pair: Pair) -> None:
    engine, ids = load(pair), np.full((1, 1, 4), 5)
    retriever, generator, index = engine.retriever, engine.generator, engine.retriever.index
    arrays = ids, np.ones_like(ids), np.zeros((1, 1), np.float32)
    vectors = np.zeros((1, index.dimension), np.float32)
    tokens = retriever.tokenize([QUESTION])
    calls: dict[str, list[Callable[[], Any]]] = {
        "RagEngine": [
            lambda: engine.generate(QUESTION),
            lambda: engine.generate([QUESTION, QUESTION]),
            lambda: engine.generate([]),
            lambda: engine.generate(QUESTION, documents=SCORED),
            lambda: engine.generate(QUESTION, documents=OWN),
            lambda: engine.stream(QUESTION, num_beams=1, marginalize="token"),
            lambda: engine.stream(QUESTION, num_beams=1, marginalize="token", documents=SCORED),
            lambda: engine.score(QUESTION, " yes"),
            lambda: engine.score(QUESTION, " yes", documents=SCORED),
            lambda: engine.classify(QUESTION, [" yes", " no"]),
            lambda: engine.classify(QUESTION, [" yes", " no"], documents=SCORED),
            lambda: engine.retrieve(QUESTION),
            lambda: engine.swap_index(index_of(pair)),
        ],
        "Retriever": [
            lambda: retriever.search_vectors(vectors, 1),
            lambda: retriever.tokenize([QUESTION]),
            lambda: retriever.encode(tokens),
            lambda: retriever.question_text(tokens[0]),
            lambda: retriever.borrow_index(),
            lambda: retriever.swap_index(index_of(pair)),
        ],
        "Generator": [
            lambda: generator.generate(*arrays),
            lambda: generator.stream(*arrays),
            lambda: generator.score(*arrays, np.full((1, 3), 5)),
            lambda: generator.forward(*arrays, np.full((1, 3), 5)),
            lambda: generator.check_options(generator.default_options),
        ],
    }
    engine.close()
    for name, refused in calls.items():
        for call in refused:
            with pytest.raises(ClosedError, match=rf"^This {name} was closed; load it again\.$"):
                call()
    for refuse in (
        index.warm_up,
        index.verify,
        lambda: index.search(vectors, 1),
        lambda: index.passages([0]),
    ):
        with pytest.raises(ClosedError, match=r"is closed; open (it|the index) again\.$"):
            refuse()
    assert (engine.device, engine.default_options) == ("cpu", pair.engine.default_options)


def test_each_part_closes_alone_and_in_a_with_block(pair: Pair) -> None:
    ids = np.full((1, 1, 4), 5)
    with Generator.load(pair.bundle, device="cpu") as generator:
        assert generator.generate(ids, np.ones_like(ids), np.zeros((1, 1), np.float32))
    with Retriever.load(pair.bundle, index=index_of(pair), device="cpu") as retriever:
        assert retriever.tokenize([QUESTION])
    with PassageIndex.open(index_of(pair)) as index:
        index.warm_up()
    for part in (generator, retriever, index):
        part.close()
        with pytest.raises(ClosedError), part:
            part.tokenize([QUESTION]) if isinstance(part, Retriever) else (
                part.check_options(part.default_options) if isinstance(part, Generator) else part.warm_up()
            )


def test_close_gives_the_graphs_back_while_the_engine_is_still_held(pair: Pair) -> None:
    engine = load(pair)
    graphs = [weakref.ref(engine.generator._model), weakref.ref(engine.retriever._encoder)]
    assert all(graph() is not None for graph in graphs)
    engine.close()
    assert [graph() for graph in graphs] == [None, None]


def test_an_engine_that_nobody_closed_leaves_nothing(pair: Pair) -> None:
    """An engine is in no reference cycle, so nothing waits for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        engine = load(pair)
        assert ask(engine)
        parts = engine, engine.generator._model, engine.retriever._encoder, engine.retriever.index
        gone = [weakref.ref(part) for part in parts]
        del engine, parts
        assert [part() for part in gone] == [None] * 4
    finally:
        gc.enable()


def test_many_threads_close_what_many_threads_use(pair: Pair) -> None:
    """Every call gives its answer or says that the engine is closed, and nothing else."""
    mixture = jobs(pair.questions(800, 3))
    expected = {name: outcome(job, pair.engine) for name, job in mixture.items()}
    for attempt in range(5):
        engine, start, answered = load(pair), threading.Barrier(12), threading.Event()
        graphs = weakref.ref(engine.generator._model)

        def use(number: int, engine: RagEngine = engine, start: Any = start, answered: Any = answered) -> int:
            start.wait()
            for count, name in enumerate(
                itertools.cycle(sorted(mixture)[number:] + sorted(mixture)[:number])
            ):
                found = outcome(mixture[name], engine)
                if found == expected[name]:
                    answered.set()
                else:
                    assert found[0] == "ClosedError", f"{name} {found}"
                    return count
            raise AssertionError

        def close(engine: RagEngine = engine, start: Any = start, answered: Any = answered) -> None:
            start.wait()
            assert answered.wait(60)
            engine.close()

        with ThreadPoolExecutor(12) as pool:
            users = [pool.submit(use, number) for number in range(8)]
            closers = [pool.submit(close) for _ in range(4)]
            assert all(future.exception(timeout=60) is None for future in users + closers), attempt
        del use, close, users, closers
        assert graphs() is None


def test_a_stream_goes_on_when_the_engine_closes(pair: Pair) -> None:
    settings = {**SHORT, "num_beams": 1, "marginalize": "token"}
    with load(pair) as engine:
        whole = [token.token_id for token in engine.stream(QUESTION, **settings)]
        stream = engine.stream(QUESTION, **settings)
        begun = next(stream).token_id
    assert [begun, *(token.token_id for token in stream)] == whole


def test_a_dropped_stream_is_freed_at_once(engine: RagEngine) -> None:
    gc.collect()
    gc.disable()
    try:
        stream = engine.stream(QUESTION, **SHORT, num_beams=1, marginalize="token")
        next(stream)
        gone = weakref.ref(stream)
        del stream
        assert gone() is None
    finally:
        gc.enable()


def test_a_call_within_a_call_finishes_with_it(pair: Pair, expected: Any) -> None:
    engine = load(pair)
    seen: list[Any] = []

    def close_and_ask(question: int, tokens: np.ndarray) -> list[int]:
        engine.close()
        if not seen:
            seen.append(outcome(ask, engine))
        return list(range(engine.bundle.manifest.generator.vocab_size))

    answer = engine.generate(QUESTION, **SHORT, num_beams=2, prefix_allowed_tokens_fn=close_and_ask)
    assert seen[0] == expected
    assert (
        answer.hypotheses[0].token_ids.tolist()
        == pair.engine.generate(QUESTION, **SHORT, num_beams=2).hypotheses[0].token_ids.tolist()
    )
    assert outcome(ask, engine)[0] == "ClosedError"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
def test_an_interrupt_anywhere_leaves_the_engine_usable(engine: RagEngine, expected: Any) -> None:
    """Ctrl-C at many points of a question is raised, frees the call, and the next answer is right."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    interrupted, before = 0, signal.signal(signal.SIGALRM, interrupt)
    # Hypothesis times collections in a callback, where an interrupt would be reported instead of raised.
    watching, gc.callbacks[:] = gc.callbacks[:], []
    try:
        for number in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 0.0003)
                found = outcome(ask, engine)
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert found == expected
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.callbacks[:] = watching
    assert interrupted > 5
    assert outcome(ask, engine) == expected
    assert engine._calls.threads() == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
def test_a_signal_handler_may_close(pair: Pair, expected: Any) -> None:
    """At many points of a question, in the same thread: no lock blocks it, and the question is answered."""
    closed = 0
    for number in range(12):
        engine = load(pair)
        before = signal.signal(signal.SIGALRM, lambda *_, engine=engine: engine.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + number * 0.0007)
            found = [outcome(ask, engine) for _ in range(3)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        closed += found[-1][0] == "ClosedError"
        assert all(f == expected or f[0] == "ClosedError" for f in found)
        engine.close()
    assert closed


ENDING = """
import sys, threading, time
from ragengine import RagEngine

folders = dict(zip(("bundle", "index"), sys.argv[1:]))
load = lambda: RagEngine.load(**folders, device="cpu", threads=2, verify="size")
engine, question = load(), "What is the capital of Iceland?"
deeds = [
    lambda: engine.generate(question, num_beams=4, max_length=40),
    lambda: engine.generate([question] * 4, num_beams=2, marginalize="sequence"),
    lambda: list(engine.stream(question, num_beams=1)),
    lambda: engine.retrieve(question),
    lambda: engine.swap_index(folders["index"], verify="size"),
    lambda: load().close(),
]
started = threading.Barrier(len(deeds) + 1)

def repeat(deed):
    deed()
    started.wait()
    while True:
        deed()

for deed in deeds:
    threading.Thread(target=repeat, args=(deed,), daemon=True).start()
started.wait()
time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("ending", "status", "last"),
    [("", 0, []), ("sys.exit(5)", 5, []), ("raise ValueError('its own')", 1, ["ValueError: its own"])],
)
def test_a_process_ends_while_threads_ask(ending: str, status: int, last: list[str]) -> None:
    """Daemon threads in the middle of any call do not crash the interpreter's shutdown or print anything."""
    command = [
        sys.executable,
        "-c",
        ENDING + ending,
        *(str(WORLDFACTS / name) for name in ("bundle", "index")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (status, last)
