"""A client that takes nothing of its response is hung up on; a slow one gets all of it."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.served import Served, running, until

LONG = {"question": "q", "documents": [{"text": "x" * 990_000, "score": 1.0}], "num_beams": 1}


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    with running(request_timeout=1) as served:
        yield served


def asked(served: Served, **more: object) -> socket.socket:
    """A connection that has asked for about a megabyte, and takes few bytes at once."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", served.port))
    body = json.dumps(LONG | {"max_new_tokens": 1} | more).encode()
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"POST /v1/answer HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode() + body)
    return connection


def connections(served: Served) -> int:
    """The connections that the server has open, as the system lists them."""
    port = f":{served.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = 9
    return sum(row[1].endswith(port) and row[2] != "00000000:0000" and row[inode] != "0" for row in rows)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="connections are counted as Linux lists them")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_takes_nothing_is_hung_up_on(impatient: Served, stream: bool) -> None:
    before = connections(impatient)
    with asked(impatient, stream=stream):
        until(lambda: connections(impatient) == before + 1)
        until(lambda: connections(impatient) == before)
    until(lambda: impatient.state.requests_in_flight == 0)


def test_a_client_that_takes_little_at_a_time_gets_all(impatient: Served) -> None:
    with asked(impatient) as connection:
        received, begun = b"", time.monotonic()
        while part := connection.recv(40_000):
            received += part
            time.sleep(0.1 if time.monotonic() < begun + 3 else 0)
    content = json.loads(received.partition(b"\r\n\r\n")[2])
    assert content["documents"][0]["text"] == LONG["documents"][0]["text"]  # type: ignore[index]
