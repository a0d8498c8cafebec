"""When a shard that did not answer is asked again."""

from types import SimpleNamespace

import pytest

from ragengine.errors import DeadlineError, ShardError
from ragengine.retrieval.sharding import breaker as module
from ragengine.retrieval.sharding.asking import Search, searching
from ragengine.retrieval.sharding.breaker import LONGEST_REST, Breaker, Health
from ragengine.retrieval.sharding.partial_shard import PartialShard


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_rests_double_and_one_call_tries_after_each(clock: Clock) -> None:
    breaker, rests = Breaker(5.0), []
    for failures in range(1, 9):
        call = breaker.admit()
        assert call is not None
        assert failures == 1 or breaker.admit() is None  # another one while this one tries
        breaker.failed(call, "no answer")
        rests.append(breaker.health.seconds)
        assert breaker.health == Health("open", failures, rests[-1], "no answer")
        clock.now += rests[-1] * 0.99
        assert breaker.admit() is None
        clock.now += rests[-1] * 0.02
        assert breaker.health.state == "half_open"
    assert rests == pytest.approx([5, 10, 20, 30, 30, 30, 30, 30])
    assert max(rests) == pytest.approx(LONGEST_REST)
    call = breaker.admit()
    assert call is not None
    breaker.succeeded(call)
    assert breaker.health == Health()
    assert breaker.admit() == breaker.admit() is not None


def test_calls_that_fail_together_fail_once(clock: Clock) -> None:
    breaker = Breaker(5.0)
    calls = [breaker.admit() for _ in range(4)]
    for call in calls:
        assert call is not None
        breaker.failed(call, "no answer")
    assert (breaker.health.failures, breaker.health.seconds) == (1, 5.0)
    clock.now += 6
    again = breaker.admit()
    assert again is not None
    assert calls[0] is not None
    breaker.succeeded(calls[0])  # it began before the shard failed
    breaker.failed(calls[0], "no answer")
    assert breaker.health.failures == 1
    breaker.succeeded(again)
    breaker.failed(calls[0], "no answer")
    assert breaker.health.state == "closed"


def test_a_try_without_a_verdict_lets_another_one_try(clock: Clock) -> None:
    breaker = Breaker(5.0)
    call = breaker.admit()
    assert call is not None
    breaker.failed(call, "no answer")
    clock.now += 6
    for _ in range(2):
        trying = breaker.admit()
        assert trying is not None
        assert breaker.admit() is None
        breaker.ended(trying)
    assert breaker.health.failures == 1


class Failing:
    name, count, fingerprint = "shard 1", 3, "f"

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    def passages(self, rows: object) -> list[object]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return []

    vectors = passages


def test_only_what_a_search_waits_for_opens_the_circuit(clock: Clock) -> None:
    shard = Failing()
    partial = PartialShard(shard, Breaker(5.0))
    for error in (ShardError("no", refused=True), DeadlineError("late")):
        shard.error = error
        with searching(Search(missing=set())), pytest.raises(type(error)):
            partial.passages([1])
        assert partial.health.state == "closed"
    shard.error = ShardError("It does not answer.")
    with pytest.raises(ShardError):
        partial.passages([1])  # it keeps no note
    assert partial.health.state == "closed"
    missing: set[str] = set()
    with searching(Search(missing=missing)), pytest.raises(ShardError):
        partial.passages([1])
    assert (missing, partial.health.state) == ({"shard 1"}, "open")
    before, shard.error = shard.asked, None
    for search in (Search(), Search(missing=set())):
        with searching(search), pytest.raises(ShardError, match=r"shard 1 is asked again in 5\.0 s") as said:
            partial.passages([1])
        assert "It does not answer." in str(said.value)
    with pytest.raises(ShardError):
        partial.vectors([1])
    assert shard.asked == before
    clock.now += 6
    assert partial.passages([1]) == []  # without a note it decides nothing
    assert partial.health.state == "half_open"
    with searching(Search(missing=set())):
        assert partial.passages([1]) == []
    assert partial.health.state == "closed"
