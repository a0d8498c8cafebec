"""`TokenStream`: threads share it, and end it at any moment."""

import pickle
import signal
import threading
import weakref
from collections.abc import Generator as PythonGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragengine.errors import InputError, ProcessError
from ragengine.generation.token_stream import TokenStream
from ragengine_bench.parity.pairs import Pair

STREAMED = {"num_beams": 1, "marginalize": "token", "n_docs": 2, "min_length": 20, "max_length": 20}


class Slow:
    """Tokens 0, 1, 2, ... of which each is computed when :attr:`go` is released."""

    def __init__(self) -> None:
        self.begun, self.go, self.freed = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
        self.stream = TokenStream(self._tokens())

    def _tokens(self) -> PythonGenerator[int, None, None]:
        try:
            for token in range(5):
                self.begun.release()
                self.go.acquire()
                yield token
        finally:
            self.freed.set()


def test_a_stream_is_closed_while_another_thread_computes() -> None:
    """The token that is being computed is the last, and nothing stays in memory."""
    slow = Slow()
    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(next, slow.stream)
        slow.begun.acquire()
        slow.stream.close()
        slow.stream.close()
        assert not slow.freed.is_set()
        slow.go.release()
        assert computing.result(10) == 0
    assert slow.freed.is_set()
    assert list(slow.stream) == []


def test_each_token_goes_to_one_of_the_threads_that_ask() -> None:
    slow = Slow()
    slow.go.release(5)
    with ThreadPoolExecutor(4) as pool:
        found = [token for part in pool.map(lambda _: list(slow.stream), range(4)) for token in part]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_a_signal_handler_closes_the_stream_of_its_own_thread() -> None:
    if not hasattr(signal, "raise_signal"):
        pytest.skip("no signals here")

    def tokens() -> PythonGenerator[int, None, None]:
        for token in range(5):
            signal.raise_signal(signal.SIGINT)
            yield token

    stream = TokenStream(tokens())
    before = signal.signal(signal.SIGINT, lambda *_: stream.close())
    try:
        assert list(stream) == [0]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_token_is_not_asked_for_within_one() -> None:
    stream: TokenStream[int]

    def tokens() -> PythonGenerator[int, None, None]:
        with pytest.raises(InputError, match=r"^This TokenStream is computing a token in this very thread"):
            next(stream)
        yield 1

    stream = TokenStream(tokens())
    assert list(stream) == [1]


def test_an_error_comes_out_and_ends_the_stream() -> None:
    def tokens() -> PythonGenerator[int, None, None]:
        yield 1
        raise KeyError("its own")

    stream = TokenStream(tokens())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="its own"):
        next(stream)
    assert list(stream) == []


def test_streams_of_answers_and_of_a_generator_are_shared_by_threads(pair: Pair) -> None:
    settings: dict[str, Any] = STREAMED
    expected = pair.engine.generate("who?", **settings)
    stream = pair.engine.stream("who?", **settings)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda _: list(stream), range(8)))
    assert sum(map(len, parts)) == len(expected.tokens)
    assert stream.answer().texts == expected.texts
    begun = pair.engine.stream("who?", **settings)
    with ThreadPoolExecutor(2) as pool:
        taken = pool.submit(list, begun)
        begun.close()
        assert len(taken.result(30)) <= len(expected.tokens)
    gone = weakref.ref(begun._tokens)
    assert list(begun) == []
    del begun, taken
    assert gone() is None
    for closed in (pair.engine.stream("who?", **settings), stream):
        with pytest.raises(ProcessError, match=r"^This AnswerStream cannot be pickled or copied"):
            pickle.dumps(closed)
