"""Clients that go away, and deadlines: the work stops within one decoding step, counted in the decoder."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ragengine.generation.model import GeneratorModel
from tests.support.served import QUESTION, Served, until

LONG = {"num_beams": 2, "min_new_tokens": 250, "max_new_tokens": 250, "n_docs": 2}


class Steps:
    """Counts decoding steps, which begin when the test lets them."""

    def __init__(self) -> None:
        self.count = 0
        self.allowed = threading.Semaphore(0)

    def take(self) -> None:
        self.allowed.acquire(timeout=30)
        self.count += 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    found, step = Steps(), GeneratorModel.decode_step

    def counted(self: GeneratorModel, *arguments: Any, **settings: Any) -> Any:
        found.take()
        return step(self, *arguments, **settings)

    monkeypatch.setattr(GeneratorModel, "decode_step", counted)
    yield found
    found.allowed.release(100_000)


def send(server: Served, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = f"POST /v1/answer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n".encode()
    connection.sendall(head + b"Content-Type: application/json\r\n\r\n" + data)
    return connection


@pytest.mark.parametrize("body", [LONG, LONG | {"num_beams": 1, "stream": True}], ids=["whole", "streamed"])
def test_a_client_that_goes_away_cancels_its_work_within_a_step(
    server: Served, steps: Steps, body: dict[str, Any]
) -> None:
    scheduler = server.state.scheduler
    connection = send(server, {"question": QUESTION, **body})
    steps.allowed.release(3)
    until(lambda: steps.count == 3)
    gone = server.metric('rag_request_count_total{endpoint="/v1/answer",outcome="client_gone"}')
    connection.close()
    until(lambda: server.state.requests_in_flight == 0)
    steps.allowed.release(1)  # the step that is about to begin sees that nobody waits
    until(lambda: scheduler.idle)
    assert steps.count == 4
    assert server.metric('rag_request_count_total{endpoint="/v1/answer",outcome="client_gone"}') == gone + 1


def test_a_request_that_shares_its_work_keeps_it(server: Served, steps: Steps) -> None:
    body = {"question": QUESTION, "max_new_tokens": 3, "min_new_tokens": 3, "n_docs": 2}
    first, second = send(server, body), send(server, body)
    until(lambda: server.state.requests_in_flight == 2)
    first.close()
    until(lambda: server.state.requests_in_flight == 1)
    steps.allowed.release(100)
    with second:
        assert second.recv(20).startswith(b"HTTP/1.1 200")
    until(lambda: server.state.scheduler.idle)
    assert steps.count <= 4


def test_a_deadline_answers_504_and_ends_the_work(server: Served, steps: Steps) -> None:
    reply = server.post("/v1/answer", {"question": QUESTION, **LONG, "deadline_ms": 200})
    assert (reply.status, reply.content["error"]["type"]) == (504, "deadline_exceeded")
    steps.allowed.release(1)
    until(lambda: server.state.scheduler.idle)
    assert steps.count <= 1


def test_the_deadline_of_a_stream_is_its_last_event(server: Served, steps: Steps) -> None:
    steps.allowed.release(2)
    body = {"question": QUESTION, **LONG, "num_beams": 1, "stream": True, "deadline_ms": 1500}
    with send(server, body) as connection:
        parts = b""
        while b"event: error" not in parts:
            part = connection.recv(65536)
            assert part, parts
            parts += part
    assert parts.startswith(b"HTTP/1.1 200")
    assert b"event: token" in parts
    assert b"deadline_exceeded" in parts
    steps.allowed.release(1)
    until(lambda: server.state.scheduler.idle)


def test_a_request_whose_client_left_the_queue_is_never_computed(server: Served, steps: Steps) -> None:
    together = server.metric('rag_batch_size_sum{stage="search"}')
    busy = [
        send(server, {"question": f"{QUESTION} {n}", **LONG}) for n in range(server.state.settings.executors)
    ]
    until(lambda: server.metric("rag_questions_running") == len(busy))
    waiting = send(server, {"question": "Where is Lima?"})
    until(lambda: server.metric("rag_queue_size") == 1)
    waiting.close()
    until(lambda: server.state.requests_in_flight == len(busy))
    for connection in busy:
        connection.close()
    until(lambda: server.state.requests_in_flight == 0)
    steps.allowed.release(len(busy))
    until(lambda: server.state.scheduler.idle)
    assert server.metric('rag_batch_size_sum{stage="search"}') == together + len(busy)
    assert steps.count <= len(busy)
