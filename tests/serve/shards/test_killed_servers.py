"""Servers of shards that stop or are killed under load: no wrong answer, and every loss is visible."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import RagEngineError, ShardError
from ragengine.retrieval.candidates import SearchResult
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.searching import search_index
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.cancellation import NEVER
from tests.support.commands import COMMAND
from tests.support.paths import WORLDFACTS
from tests.support.served import free_port, until
from tests.support.sharded import addressed, shard_folders, write_shards

pytestmark = pytest.mark.slow
SECONDS = 20


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

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(30)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[ShardProcess]]:
    """Two servers of each of two shards: 0, 0, 1, 1."""
    folder = write_shards(tmp_path / "shards", 2)
    found = [ShardProcess(path) for path in shard_folders(folder) for _ in range(2)]
    try:
        yield found
    finally:
        for server in found:
            server.end()


def opened(path: Path, options: RemoteOptions, *, allow_partial: bool = False) -> Any:
    """The index, as soon as its servers answer."""
    index = None

    def ready() -> bool:
        nonlocal index
        try:
            index = open_index(path, remote=options, allow_partial=allow_partial)
        except ShardError:
            return False
        return True

    until(ready, 120)
    return index


def test_a_stopped_replica_does_not_hold_a_question_up(servers: list[ShardProcess], tmp_path: Path) -> None:
    path = addressed(
        tmp_path / "shards", tmp_path / "remote", [[s.url for s in servers[n : n + 2]] for n in (0, 2)]
    )
    options = RemoteOptions(timeout=30, hedge_after=0.1, rest=0.0)
    with opened(path, options) as index, PassageIndex.open(WORLDFACTS / "index", verify="size") as whole:
        question = whole.vectors(np.array([7]))
        expected = whole.search(question, 5)
        until(lambda: all(_answers(server) for server in servers), 120)
        os.kill(servers[0].process.pid, signal.SIGSTOP)
        for _ in range(6):
            started = time.perf_counter()
            assert_same(index.search(question, 5), expected)
            assert time.perf_counter() - started < 10


@pytest.mark.parametrize("allow_partial", [False, True])
def test_killed_servers_under_load(servers: list[ShardProcess], tmp_path: Path, allow_partial: bool) -> None:
    path = addressed(
        tmp_path / "shards", tmp_path / "remote", [[s.url for s in servers[n : n + 2]] for n in (0, 2)]
    )
    options = RemoteOptions(timeout=1.0, hedge_after=0.05, rest=0.2)
    wrong: list[object] = []
    counts = {"whole": 0, "partial": 0, "error": 0}
    lock, stop = threading.Lock(), threading.Event()
    with PassageIndex.open(WORLDFACTS / "index", verify="size") as whole:
        until(lambda: all(_answers(server) for server in servers), 120)
        index = opened(path, options, allow_partial=allow_partial)
        questions = whole.vectors(np.arange(0, whole.count, whole.count // 16))
        expected = {
            (): [[d.id for d in found] for found in whole.search_documents(questions, 5)],
        }
        every = [[d.id for d in found] for found in whole.search_documents(questions, whole.count)]
        for number, entry in enumerate(index.manifest.shards):
            absent = {p.id for p in whole.passages(range(entry.first_row, entry.first_row + entry.count))}
            expected[(index.shards[number].name,)] = [
                [i for i in ids if i not in absent][:5] for ids in every
            ]

        def client(seed: int) -> None:
            draw = random.Random(seed)
            while not stop.is_set():
                number = draw.randrange(len(questions))
                try:
                    found = search_index(index, questions[number : number + 1], 5, None, NEVER)
                except RagEngineError as error:
                    kind = "error"
                    if not isinstance(error, ShardError):
                        wrong.append(error)
                except BaseException as error:
                    kind = "error"
                    wrong.append(error)
                else:
                    kind = "partial" if found.missing else "whole"
                    if [d.id for d in found.documents[0]] != expected[found.missing][number]:
                        wrong.append((number, found.missing))
                with lock:
                    counts[kind] += 1

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
        for thread in clients:
            thread.start()
        draw, end = random.Random(0), time.monotonic() + SECONDS
        while time.monotonic() < end:
            victims = draw.sample(servers, draw.choice([1, 1, 2]))
            for victim in victims:
                victim.process.kill()
            for victim in victims:
                victim.process.wait(30)
            time.sleep(0.5)
            for victim in victims:
                victim.start()
            time.sleep(1.5)
        # Both servers of shard 1: the loss must show.
        for victim in servers[2:]:
            victim.process.kill()
            victim.process.wait(30)
        time.sleep(2)
        stop.set()
        for thread in clients:
            thread.join(30)
            assert not thread.is_alive()
        index.close()
    print(counts)
    assert wrong == []
    assert counts["whole"] > 0
    assert counts["partial" if allow_partial else "error"] > 0
    assert allow_partial or not counts["partial"]


def _answers(server: ShardProcess) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{server.url}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def assert_same(ours: SearchResult, theirs: SearchResult) -> None:
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
