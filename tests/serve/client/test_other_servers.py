"""What a client is answered by another server, or sends that none can read, is one typed error."""

import asyncio
import contextlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ragengine import Document
from ragengine.errors import ClosedError, InputError, RagEngineError
from ragengine_serve import AsyncClient, Client, ServerError

TOKEN = {"id": 1, "text": "a", "log_prob": 0.0, "posterior": [1.0]}


def response(body: Any, status: str = "200 OK", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"Content-Length": str(len(content))} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + content


@contextlib.contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server that answers every request with the same bytes and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def calls_of(client: Client) -> list[Callable[[], Any]]:
    return [
        lambda: client.answer("q"),
        lambda: client.answer(["q", "r"]),
        lambda: client.retrieve("q"),
        lambda: client.score("q", "a"),
        lambda: client.classify("q", ["a"]),
        lambda: client.embed(["q"]),
        client.info,
        lambda: list(client.stream("q")),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        response(b"<html>Log in</html>"), response(b""), response(None), response(3), response([[]]),
        response(b'{"log_prob": NaN, "vectors": [[NaN]]}'), response(b"\xff\xfe"), response(b"[" * 10**5),
        response(b"{", Content_Length="100"), response(b"{}", Content_Encoding="gzip"), b"hello\r\n\r\n", b"",
        response({"error": {"type": "a", "message": "m", "field": None}}, "429 No", Retry_After="9" * 5000),
        response([1], "500 Failed", Retry_After="soon"), response(b"", "302 Found", Location="http://x/"),
    ],
    ids=["page", "nothing", "null", "number", "lists", "NaN", "no UTF-8", "deep", "half", "no gzip", "text",
         "hung up", "long wait", "a wait in words", "elsewhere"],
)  # fmt: skip
def test_another_server_is_one_error(reply: bytes) -> None:
    with answering(reply) as url, Client(url, timeout=20) as client:
        for call in calls_of(client):
            with pytest.raises(ServerError) as error:
                call()
            assert len(str(error.value)) < 600


def test_a_list_is_no_answer_to_one_question() -> None:
    with answering(response([{"log_prob": -1.0}])) as url, Client(url) as client:
        assert client.score(["q"], ["a"]) == [-1.0]
        for call in (lambda: client.score("q", "a"), lambda: client.score(["q", "r"], ["a", "b"])):
            with pytest.raises(ServerError, match="none of ragengine's"):
                call()


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (b"", "ended before its answer"),
        (b"event: token\ndata: " + json.dumps(TOKEN).encode() + b"\n\n", "ended before its answer"),
        (b"event: token\ndata: {bad\n\n", "none of ragengine's"),
        (b"event: ping\ndata: {}\n\n", "none of ragengine's"),
        (b"event: error\ndata: []\n\n", "none of ragengine's"),
        (b"event: final\n\n", "none of ragengine's"),
    ],
)
def test_a_stream_without_its_answer_is_an_error(events: bytes, said: str) -> None:
    """A proxy may end a response in order though the server behind it has died."""

    async def follow(url: str) -> None:
        async with AsyncClient(url) as client:
            async for _ in client.stream("q"):
                pass

    with answering(response(events, Content_Type="text/event-stream")) as url:
        with Client(url) as client, pytest.raises(ServerError, match=said):
            list(client.stream("q"))
        with pytest.raises(ServerError, match=said):
            asyncio.run(follow(url))


UNSENDABLE: dict[str, Callable[[Client], Any]] = {
    "half a surrogate pair": lambda c: c.answer("\ud800"),
    "the same in a stream": lambda c: list(c.stream("\ud800")),
    "NaN": lambda c: c.answer("q", documents=[Document("a", "b", score=math.nan)]),
    "a numpy number": lambda c: c.answer("q", num_beams=np.int64(2)),
    "a number of 5000 digits": lambda c: c.answer("q", seed=10**5000),
    "an object": lambda c: c.score("q", object()),
    "no document": lambda c: c.answer("q", documents=["x"]),
    "no documents": lambda c: c.answer(["q"], documents=3),
    "no passage": lambda c: c.embed(passages=["x"]),  # type: ignore[list-item]
    "no questions": lambda c: c.embed(3),  # type: ignore[arg-type]
    "no labels": lambda c: c.classify("q", 3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_cannot_be_sent_is_named_before_anything_is(name: str) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InputError):
        UNSENDABLE[name](client)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "settings",
    [
        *({"base_url": url} for url in ("", "127.0.0.1:8000", "ftp://x", "http://", "http://[::1", 3, None)),
        *({"base_url": "http://x", "api_key": key} for key in ("", "a\nb", "schlüssel", "\ud800", 3)),
        *({"base_url": "http://x", "timeout": time} for time in (0, -1, math.nan, "x", True, None, 10**400)),
    ],
    ids=ascii,
)
def test_what_a_client_cannot_use_is_named(client: Any, settings: dict[str, Any]) -> None:
    name = list(settings)[-1]
    with pytest.raises(InputError, match=f"^{name} ") as error:
        client(**settings)
    assert "schlüssel" not in str(error.value)


def test_a_closed_client_says_so() -> None:
    client = Client("http://127.0.0.1:1")
    client.close()
    for call in (*calls_of(client), client.ready):
        with pytest.raises(ClosedError, match=r"^This Client was closed; make another\.$"):
            call()

    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:1") as closed:
            pass
        await closed.answer("q")

    with pytest.raises(RagEngineError, match=r"^This AsyncClient was closed"):
        asyncio.run(ask())
