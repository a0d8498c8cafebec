"""A real server on a real port, in a thread of the tests' own process."""

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine_serve.configuration.settings import ModelFolders, Settings
from ragengine_serve.process.listening import listening_socket
from ragengine_serve.process.server import serve
from ragengine_serve.state import ServerState
from tests.support.paths import WORLDFACTS

QUESTION = "What is the capital of Iceland?"
EMBEDDED = ModelFolders("worldfacts", WORLDFACTS / "bundle", WORLDFACTS / "index")


@dataclass
class Reply:
    """A response: its status, headers and JSON (or text where it is none)."""

    status: int
    headers: Any
    content: Any


@dataclass
class Served:
    """A running server."""

    url: str
    port: int
    state: ServerState

    def get(self, path: str, **headers: str) -> Reply:
        return self._send(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self._send(urllib.request.Request(self.url + path, data, told))

    def metric(self, name: str) -> float:
        """The value of a metric that has no labels, or with them."""
        text = self.get("/metrics").content
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(values[0]) if values else 0.0

    def _send(self, request: urllib.request.Request) -> Reply:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Reply(response.status, response.headers, _content(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, _content(error.read()))


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Served]:
    """A server with the embedded model on a free port; it has drained at the end."""
    chosen: dict[str, Any] = {
        "models": (EMBEDDED,),
        "port": 0,
        "threads": 1,
        "device": "cpu",
        "verify": "size",
    }
    chosen |= {"max_concurrent_requests": 2, "drain_timeout": 5, **settings}
    told = Settings(**chosen)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    ready, failures = threading.Event(), []
    state = ServerState.of(told)
    with listening_socket(told) as listening:

        async def tell() -> None:
            ready.set()

        def run() -> None:
            try:
                loop.run_until_complete(serve(state, listening, ready=tell, stop=stop))
            except BaseException as error:
                failures.append(error)
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
                ready.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(120)
        if failures:
            thread.join()
            raise failures[0]
        name = listening.getsockname()
        port = 0 if isinstance(name, str) else name[1]
        try:
            yield Served(f"http://127.0.0.1:{port}", port, state)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(60)
            assert not thread.is_alive()
            assert not failures


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until ``condition`` holds."""
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.005)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def exchange(port: int, sent: bytes, *, wait: float = 10) -> bytes:
    """What the server answers to bytes that need be no request, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(sent)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def write_keys(path: Path, *keys: str) -> Path:
    """A key file."""
    path.write_text("# keys\n" + "\n".join(keys) + "\n", "utf-8")
    return path
