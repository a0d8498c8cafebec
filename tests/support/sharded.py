"""Indexes in shards whose servers run here, and servers that misbehave."""

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ragengine.indexing.build import build_index
from ragengine.indexing.shard import shard_index
from tests.support.bundles import E, random_vectors
from tests.support.paths import WORLDFACTS

PARTS = 3
COUNT = 400


def write_owned_index(folder: Path, bundle: Path, factory: str) -> Path:
    """An index of 400 passages with ids and metadata, some with equal vectors; a third are those of sales."""
    vectors = random_vectors(COUNT, E)
    vectors[200:300] = vectors[:100]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    with (folder / "passages.jsonl").open("w") as file:
        for number in range(COUNT):
            owner = {"owner": "data" if number % 3 else "sales"}
            line = {"id": f"p{number}", "title": "t", "text": f"text {number}", "metadata": owner}
            file.write(json.dumps(line) + "\n")
    build_index(
        folder / "passages.jsonl",
        folder / "index",
        bundle=bundle,
        embeddings=folder / "vectors.npy",
        factory=factory,
        threads=1,
    )
    return folder / "index"


def write_shards(folder: Path, parts: int = PARTS) -> Path:
    """The embedded index in shards."""
    shard_index(WORLDFACTS / "index", folder, shards=parts, threads=1)
    return folder


def shard_folders(folder: Path) -> list[Path]:
    """The index folders of the shards, in their order."""
    content = json.loads((folder / "shards.json").read_text("utf-8"))
    return [folder / entry["folder"] for entry in content["shards"]]


def addressed(folder: Path, target: Path, addresses: Sequence[Sequence[str]]) -> Path:
    """A copy of ``shards.json`` alone, whose shards are at ``addresses``, a list for each."""
    target.mkdir()
    content = json.loads((folder / "shards.json").read_text("utf-8"))
    for entry, servers in zip(content["shards"], addresses, strict=True):
        entry["folder"], entry["addresses"] = None, list(servers)
    (target / "shards.json").write_text(json.dumps(content), "utf-8")
    for extra in ("calibration.json",):
        if (folder / extra).exists():
            shutil.copy(folder / extra, target / extra)
    return target


def reply(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A response over HTTP, which may tell a wrong length."""
    told = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body) if length is None else length}"]
    return "".join(f"{line}\r\n" for line in [*told, ""]).encode() + body


@contextlib.contextmanager
def answering(response: bytes | None) -> Iterator[str]:
    """A server that answers every request with these bytes and hangs up; with None it answers nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop, held = threading.Event(), []

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            if stop.is_set():
                connection.close()
                return
            if response is None:
                held.append(connection)
                continue
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(response)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join(10)
        listening.close()
        for connection in held:
            connection.close()
