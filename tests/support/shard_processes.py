"""Servers of shards in processes of their own, and clients that check every answer they get of them."""

import contextlib
import random
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragengine.errors import RagEngineError, ShardError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.searching import search_index
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.runtime.cancellation import NEVER
from tests.support.commands import COMMAND
from tests.support.paths import WORLDFACTS
from tests.support.served import free_port, until
from tests.support.sharded import addressed, shard_folders, write_shards

STARTS = 120.0  # seconds that a server may take on a busy machine


class ShardProcess:
    """`ragengine serve --shard` in a process of its own, on a port that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        arguments = ["--shard", self.folder, "--port", self.port, "--threads", 1, "--verify", "size"]
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @property
    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """Let it hang: connections are made, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextlib.contextmanager
def shard_processes(folder: Path, replicas: int) -> Iterator[tuple[Path, list[list[ShardProcess]]]]:
    """Two shards of the embedded index, the folder that names their servers, and the servers of each."""
    written = write_shards(folder / "shards", 2)
    servers = [[ShardProcess(path) for _ in range(replicas)] for path in shard_folders(written)]
    every = [server for some in servers for server in some]
    try:
        path = addressed(written, folder / "remote", [[server.url for server in some] for some in servers])
        until(lambda: all(server.answers for server in every), STARTS)
        yield path, servers
    finally:
        for server in every:
            server.go_on()
            server.kill()


class Clients:
    """Threads that search an index in shards while its servers are killed.

    counts  questions that the whole index answered, that a part of it did, and that failed
    wrong   answers that are not those of the shards which they do not name as missing, and other errors
    """

    def __init__(self, path: Path, options: RemoteOptions, *, allow_partial: bool, threads: int) -> None:
        index = open_index(path, remote=options, allow_partial=allow_partial)
        assert isinstance(index, ShardedIndex)
        self.index = index
        self.counts = {"whole": 0, "partial": 0, "error": 0}
        self.wrong: list[object] = []
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._expect()
        self._threads = [threading.Thread(target=self._search, args=(seed,)) for seed in range(threads)]

    def _expect(self) -> None:
        """What is right, with both shards and with one."""
        with PassageIndex.open(WORLDFACTS / "index", verify="size") as whole:
            self.questions = whole.vectors(np.arange(0, whole.count, whole.count // 16))
            every = whole.search(self.questions, whole.count).rows

            def best(kept: np.ndarray) -> list[list[str]]:
                return [[p.id for p in whole.passages(rows[kept[rows]][:5])] for rows in every]

            self.expected = {(): best(np.ones(whole.count, bool))}
            for shard, entry in zip(self.index.shards, self.index.manifest.shards, strict=True):
                rows = np.arange(whole.count)
                lost = (entry.first_row <= rows) & (rows < entry.first_row + entry.count)
                self.expected[(shard.name,)] = best(~lost)

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
        stuck = [thread for thread in self._threads if thread.is_alive()]
        self.index.close()
        assert not stuck

    def ask(self, number: int) -> str:
        """Search once: ``whole``, ``partial`` or ``error``; a wrong answer is noted."""
        try:
            found = search_index(self.index, self.questions[number : number + 1], 5, None, NEVER)
        except RagEngineError as error:
            kind = "error"
            if not isinstance(error, ShardError) or "shard " not in str(error):
                self.wrong.append(error)
        except BaseException as error:
            kind = "error"
            self.wrong.append(error)
        else:
            kind = "partial" if found.missing else "whole"
            if [document.id for document in found.documents[0]] != self.expected[found.missing][number]:
                self.wrong.append((number, found.missing))
        with self._lock:
            self.counts[kind] += 1
        return kind

    def until(self, kind: str, more: int = 1) -> None:
        """Wait for so many more questions that end as ``kind``."""
        wanted = self.counts[kind] + more
        until(lambda: self.counts[kind] >= wanted, STARTS)

    def timed(self, number: int) -> tuple[str, float]:
        """How a question ends, and after how many seconds."""
        begun = time.perf_counter()
        return self.ask(number), time.perf_counter() - begun

    def _search(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self._ending.is_set():
            self.ask(draw.randrange(len(self.questions)))
