"""The scheduler: batches, sharing, limits, cancellation; with work that a test holds back."""

import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ragengine import PreparedQuestion
from ragengine.errors import CancelledError, InputError
from ragengine.runtime.cancellation import CancelSignal
from ragengine_bench.parity.pairs import Pair
from ragengine_serve.configuration.settings import ModelFolders, Settings
from ragengine_serve.errors import ApiError
from ragengine_serve.models.served_model import ServedModel
from ragengine_serve.scheduling.job import Task, Ticket
from ragengine_serve.scheduling.scheduler import Scheduler
from tests.support.served import until

WAIT = 30


@dataclass
class Seen:
    """A watcher that remembers."""

    batches: list[tuple[str, int]] = field(default_factory=list)
    queues: list[tuple[int, int]] = field(default_factory=list)
    how: list[str] = field(default_factory=list)

    def batch(self, stage: str, size: int) -> None:
        self.batches.append((stage, size))

    def queue(self, waiting: int, running: int) -> None:
        self.queues.append((waiting, running))

    def shared(self, how: str) -> None:
        self.how.append(how)


@dataclass(eq=False)
class Held:
    """Work that goes on when the test says so; ``fails`` are questions whose work fails."""

    group: Hashable | None = None
    go: threading.Event = field(default_factory=threading.Event)
    begun: list[list[str]] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> Any:
        return self._run([prepared], cancel)[0]

    def together(self, prepared: list[PreparedQuestion], cancel: CancelSignal) -> list[Any]:
        return self._run(list(prepared), cancel)

    def _run(self, prepared: list[Any], cancel: CancelSignal) -> list[Any]:
        texts = [one.question if one else "" for one in prepared]
        self.begun.append(texts)
        while not self.go.wait(0.002):
            if cancel.is_set():
                raise CancelledError("cancelled")
        if self.fails & set(texts):
            raise InputError(f"{texts} fails")
        return [f"{text}!" for text in texts]


@pytest.fixture
def model(pair: Pair) -> ServedModel:
    return ServedModel(ModelFolders("m", Path("b"), Path("i")), pair.engine)


@dataclass
class Bench:
    scheduler: Scheduler
    seen: Seen
    model: ServedModel

    def ask(self, work: Held, *texts: str, keys: bool = False) -> list[Ticket]:
        tasks = [Task(self.model, work, text, 1, ("k", text) if keys else None) for text in texts]
        return self.scheduler.submit(tasks)


def started(model: ServedModel, **settings: Any) -> Bench:
    chosen: dict[str, Any] = {"max_concurrent_requests": 1, "max_queue": 4, "max_batch": 8, **settings}
    seen = Seen()
    scheduler = Scheduler(Settings(**chosen), seen)
    scheduler.start()
    return Bench(scheduler, seen, model)


@pytest.fixture
def bench(model: ServedModel) -> Iterator[Bench]:
    found = started(model)
    yield found
    found.scheduler.stop(WAIT)


def test_questions_that_wait_are_encoded_and_searched_together(bench: Bench) -> None:
    work = Held()
    (first,) = bench.ask(work, "a")
    until(lambda: work.begun)  # the only thread is busy
    rest = bench.ask(work, "b", "c", "d")
    work.go.set()
    assert [ticket.future.result(WAIT) for ticket in [first, *rest]] == ["a!", "b!", "c!", "d!"]
    assert [size for stage, size in bench.seen.batches if stage == "search"] == [1, 3]
    assert work.begun == [["a"], ["b"], ["c"], ["d"]]
    assert rest[0].waited_ms > 0


def test_a_full_queue_refuses_a_request_whole(bench: Bench) -> None:
    work = Held()
    bench.ask(work, "a")
    until(lambda: work.begun)
    bench.ask(work, "b", "c", "d")
    with pytest.raises(ApiError) as error:
        bench.ask(work, "e", "f")
    assert (error.value.status, error.value.type) == (429, "queue_full")
    assert error.value.retry_after is not None
    assert error.value.retry_after >= 1
    last = bench.ask(work, "e")  # there is room for one
    with pytest.raises(ApiError):
        bench.ask(work, "f")
    work.go.set()
    assert last[0].future.result(WAIT) == "e!"


def test_when_to_come_back_counts_what_was_computed_together(model: ServedModel) -> None:
    bench = started(model, max_queue=100, max_generation_batch=2)
    together = Held(group="same")
    tickets = bench.ask(together, "a", "b")
    until(lambda: together.begun)
    assert together.begun == [["a", "b"]]
    time.sleep(0.5)
    together.go.set()
    assert [ticket.future.result(WAIT) for ticket in tickets] == ["a!", "b!"]
    held = Held()
    bench.ask(held, "first")
    until(lambda: held.begun)
    bench.ask(held, *(f"q{number}" for number in range(100)))
    with pytest.raises(ApiError) as error:
        bench.ask(held, "one more")
    assert error.value.retry_after is not None
    assert error.value.retry_after > 1
    held.go.set()
    bench.scheduler.stop(WAIT)


def test_what_nobody_waits_for_makes_room(bench: Bench) -> None:
    work = Held()
    bench.ask(work, "a")
    until(lambda: work.begun)
    for ticket in bench.ask(work, "b", "c", "d", "e"):
        ticket.leave()
    (kept,) = bench.ask(work, "f")
    work.go.set()
    assert kept.future.result(WAIT) == "f!"
    assert work.begun == [["a"], ["f"]]


def test_equal_questions_are_computed_once(bench: Bench) -> None:
    work = Held()
    tickets = [*bench.ask(work, "a", keys=True), *bench.ask(work, "a", "b", "a", keys=True)]
    work.go.set()
    assert [ticket.future.result(WAIT) for ticket in tickets] == ["a!", "a!", "b!", "a!"]
    assert sorted(work.begun) == [["a"], ["b"]]
    assert bench.seen.how == ["joined", "joined"]
    (again,) = bench.ask(work, "a", keys=True)  # without a cache it is computed again
    assert again.future.result(WAIT) == "a!"
    assert work.begun.count(["a"]) == 2


def test_a_shared_job_is_cancelled_when_the_last_leaves(bench: Bench) -> None:
    work = Held()
    first, second = (*bench.ask(work, "a", keys=True), *bench.ask(work, "a", keys=True))
    until(lambda: work.begun)
    first.leave()
    time.sleep(0.05)
    assert not bench.scheduler.idle
    second.leave()
    until(lambda: bench.scheduler.idle)
    assert not work.go.is_set()
    (third,) = bench.ask(work, "a", keys=True)  # does not join what was given up
    work.go.set()
    assert third.future.result(WAIT) == "a!"


def test_one_failure_touches_no_other(model: ServedModel) -> None:
    bench = started(model, max_generation_batch=4)
    try:
        work = Held(group="g", fails={"b"})
        bench.ask(work, "x")
        until(lambda: work.begun)
        tickets = bench.ask(work, "a", "b", "c")
        work.go.set()
        assert tickets[0].future.result(WAIT) == "a!"
        assert tickets[2].future.result(WAIT) == "c!"
        with pytest.raises(InputError):
            tickets[1].future.result(WAIT)
        assert work.begun == [["x"], ["a", "b", "c"], ["a"], ["b"], ["c"]]
    finally:
        bench.scheduler.stop(WAIT)


def test_generation_is_batched_within_groups_and_limits(model: ServedModel) -> None:
    bench = started(model, max_generation_batch=2, max_queue=8)
    try:
        blocking, first, other = Held(), Held(group=1), Held(group=2)
        bench.ask(blocking, "x")
        until(lambda: blocking.begun)
        tickets = bench.ask(first, "a", "b", "c") + bench.ask(other, "d")
        for work in (blocking, first, other):
            work.go.set()
        assert [t.future.result(WAIT) for t in tickets] == ["a!", "b!", "c!", "d!"]
        assert first.begun == [["a", "b"], ["c"]]
        assert other.begun == [["d"]]
    finally:
        bench.scheduler.stop(WAIT)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_activations_that_share_a_scale_are_never_batched(
    precision: str, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bundles of earlier versions: an answer would depend on its neighbours."""
    import dataclasses

    bundle = model.engine.bundle
    generator = dataclasses.replace(bundle.manifest.generator, activations="row")
    manifest = dataclasses.replace(bundle.manifest, precision=precision, generator=generator)
    assert not manifest.questions_share_a_scale
    manifest = dataclasses.replace(manifest, generator=dataclasses.replace(generator, activations="step"))
    monkeypatch.setattr(model.engine, "bundle", dataclasses.replace(bundle, manifest=manifest))
    assert not model.batches
    bench = started(model, max_generation_batch=8)
    try:
        blocking, work = Held(), Held(group=1)
        bench.ask(blocking, "x")
        until(lambda: blocking.begun)
        tickets = bench.ask(work, "a", "b", "c")
        blocking.go.set()
        work.go.set()
        assert [t.future.result(WAIT) for t in tickets] == ["a!", "b!", "c!"]
        assert {size for _, size in bench.seen.batches} == {1}
    finally:
        bench.scheduler.stop(WAIT)


def test_a_wrong_question_does_not_spoil_the_batch_that_is_encoded(bench: Bench) -> None:
    work = Held()
    bench.ask(work, "x")
    until(lambda: work.begun)
    tickets = bench.ask(work, "a", "\ud800", "c")
    work.go.set()
    assert tickets[0].future.result(WAIT) == "a!"
    assert tickets[2].future.result(WAIT) == "c!"
    with pytest.raises(InputError, match="surrogate"):
        tickets[1].future.result(WAIT)


def test_the_cache_keeps_what_was_asked_for_last(model: ServedModel) -> None:
    bench = started(model, cache_answers=2)
    try:
        work = Held()
        work.go.set()
        for text in ("a", "b", "a", "c", "a", "b"):
            (ticket,) = bench.ask(work, text, keys=True)
            assert ticket.future.result(WAIT) == f"{text}!"
            until(lambda: bench.scheduler.idle)
        assert work.begun == [["a"], ["b"], ["c"], ["b"]]  # c put b out
        assert bench.seen.how == ["cached", "cached"]
        bench.scheduler.cache.clear()
        bench.ask(work, "a", keys=True)[0].future.result(WAIT)
        assert work.begun[-1] == ["a"]
    finally:
        bench.scheduler.stop(WAIT)


def test_draining_finishes_what_is_queued_and_refuses_the_rest(bench: Bench) -> None:
    work = Held()
    tickets = bench.ask(work, "a", "b")
    bench.scheduler.drain()
    with pytest.raises(ApiError) as error:
        bench.ask(work, "c")
    assert error.value.status == 503
    work.go.set()
    assert [t.future.result(WAIT) for t in tickets] == ["a!", "b!"]
    until(lambda: bench.scheduler.idle)


def test_stopping_cancels_what_runs(bench: Bench) -> None:
    work = Held()
    (ticket,) = bench.ask(work, "a")
    until(lambda: work.begun)
    bench.scheduler.stop(WAIT)
    with pytest.raises(CancelledError):
        ticket.future.result(WAIT)
