"""Servers of shards that hang or are killed under load: no wrong answer, and every loss is visible."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from tests.support.paths import WORLDFACTS
from tests.support.served import until
from tests.support.shard_processes import STARTS, Clients, ShardProcess, shard_processes

SECONDS = 20
Servers = tuple[Path, list[list[ShardProcess]]]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One server of each of two shards."""
    with shard_processes(tmp_path_factory.mktemp("single"), 1) as made:
        yield made


@pytest.fixture
def doubled(tmp_path: Path) -> Iterator[Servers]:
    """Two servers of each of two shards."""
    with shard_processes(tmp_path, 2) as made:
        yield made


@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_killed_server_is_missed_and_found_again(single: Servers, allow_partial: bool) -> None:
    path, ((_,), (server,)) = single
    options = RemoteOptions(timeout=20.0, rest=0.1)
    lost = "partial" if allow_partial else "error"
    with Clients(path, options, allow_partial=allow_partial, threads=2) as clients:
        clients.until("whole", 5)
        server.kill()
        clients.until(lost, 20)
        kind, seconds = clients.timed(0)
        assert (kind, seconds < 10) == (lost, True)
        server.start()
        clients.until("whole", 5)
        assert clients.wrong == []
        assert allow_partial or not clients.counts["partial"]


def test_a_hanging_shard_costs_its_timeout_once_in_a_while(single: Servers) -> None:
    path, ((_,), (server,)) = single
    options, asked = RemoteOptions(timeout=0.5, rest=30.0), 40
    with Clients(path, options, allow_partial=True, threads=0) as clients:
        name = clients.index.shards[1].name
        until(lambda: clients.ask(0) == "whole", STARTS)
        server.stop()
        try:
            begun = time.perf_counter()
            kinds = {clients.ask(number % 16) for number in range(asked)}
            seconds = time.perf_counter() - begun
        finally:
            server.go_on()
        health = clients.index.shard_health[name]
        assert (kinds, clients.wrong) == ({"partial"}, [])
        assert (health.state, health.failures) == ("open", 1)
        assert "no answer within 0.5 s" in health.reason
        assert seconds < asked * options.timeout / 2  # each would have taken its timeout


def test_a_hanging_shard_is_asked_again(single: Servers) -> None:
    path, ((_,), (server,)) = single
    with Clients(path, RemoteOptions(timeout=0.5, rest=0.1), allow_partial=True, threads=2) as clients:
        name = clients.index.shards[1].name
        clients.until("whole", 5)
        server.stop()
        try:
            until(lambda: clients.index.shard_health[name].failures >= 2, STARTS)
        finally:
            server.go_on()
        clients.until("whole", 5)
        assert clients.index.shard_health[name].state == "closed"
        assert clients.wrong == []
        assert clients.counts["partial"] > clients.counts["error"] == 0


def test_without_allow_partial_a_hanging_shard_is_named_after_its_timeout(single: Servers) -> None:
    path, ((_,), (server,)) = single
    with Clients(path, RemoteOptions(timeout=0.5), allow_partial=False, threads=0) as clients:
        until(lambda: clients.ask(0) == "whole", STARTS)
        server.stop()
        try:
            for number in range(3):
                kind, seconds = clients.timed(number)
                assert (kind, seconds < 10) == ("error", True)
        finally:
            server.go_on()
        assert clients.wrong == []


@pytest.mark.slow
def test_a_stopped_replica_does_not_hold_a_question_up(doubled: Servers) -> None:
    path, ((stopped, _), _) = doubled
    options = RemoteOptions(timeout=30, hedge_after=0.1, rest=0.0)
    with (
        open_index(path, remote=options) as index,
        PassageIndex.open(WORLDFACTS / "index", verify="size") as whole,
    ):
        question = whole.vectors(np.array([7]))
        expected = whole.search(question, 5)
        stopped.stop()
        for _ in range(6):
            started = time.perf_counter()
            found = index.search(question, 5)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)
            assert time.perf_counter() - started < 10


@pytest.mark.slow
@pytest.mark.parametrize("allow_partial", [False, True])
def test_servers_killed_at_random_under_load(doubled: Servers, allow_partial: bool) -> None:
    path, shards = doubled
    servers = [server for some in shards for server in some]
    options = RemoteOptions(timeout=1.0, hedge_after=0.05, rest=0.2)
    with Clients(path, options, allow_partial=allow_partial, threads=4) as clients:
        clients.until("whole", 5)
        draw, end = random.Random(0), time.monotonic() + SECONDS
        while time.monotonic() < end:
            victims = draw.sample(servers, draw.choice([1, 1, 2]))
            for victim in victims:
                victim.kill()
            time.sleep(0.5)
            for victim in victims:
                victim.start()
            time.sleep(1.5)
        # Both servers of shard 1: the loss must show.
        for victim in shards[1]:
            victim.kill()
        until(lambda: all(server.answers for server in shards[0]), STARTS)
        clients.until("partial" if allow_partial else "error", 20)
        for victim in shards[1]:
            victim.start()
        clients.until("whole", 20)
    print(clients.counts)
    assert clients.wrong == []
    assert allow_partial or not clients.counts["partial"]
