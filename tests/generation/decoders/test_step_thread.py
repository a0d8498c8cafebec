"""Searches and single steps share one thread, in which no step waits for another search to end."""

import gc
import signal
import threading
import time
from typing import Any

import pytest

from ragengine.generation.decoders.step_thread import StepThread

LONG = 20.0  # seconds, for what must not take them


def this_thread() -> str:
    return threading.current_thread().name


def test_a_search_and_its_steps_run_in_the_thread() -> None:
    thread = StepThread()

    def search() -> list[str]:
        return [this_thread(), *(thread.step(this_thread) for _ in range(3))]

    names = set(thread.search(search))
    assert names == {thread.step(this_thread)}
    assert this_thread() not in names


@pytest.mark.parametrize("call", ["step", "search"])
def test_errors_come_out_and_leave_the_thread_usable(call: str) -> None:
    thread = StepThread()

    def fails() -> None:
        raise LookupError(call)

    for _ in range(2):
        with pytest.raises(LookupError, match=call):
            getattr(thread, call)(fails)
    assert thread.search(this_thread) == thread.step(this_thread) != this_thread()


def test_a_second_search_runs_in_its_own_thread_and_its_steps_between_those_of_the_first() -> None:
    """Neither ends before the other has made steps."""
    thread, started, second_done = StepThread(), threading.Event(), threading.Event()
    ran: list[str] = []

    def first() -> str:
        started.set()
        end = time.monotonic() + LONG
        while not second_done.is_set() and time.monotonic() < end:
            thread.step(lambda: ran.append("first"))
        return this_thread()

    def second() -> str:
        for _ in range(5):
            thread.step(lambda: ran.append("second"))
        return this_thread()

    names: dict[str, str] = {}
    beside = threading.Thread(target=lambda: names.update(first=thread.search(first)))
    beside.start()
    assert started.wait(LONG)
    names["second"] = thread.search(second)
    second_done.set()
    beside.join(LONG)
    assert names == {"first": thread.step(this_thread), "second": this_thread()}
    assert ran.count("second") == 5
    assert "first" in ran


def test_a_search_within_a_search_runs_at_once() -> None:
    thread = StepThread()
    assert thread.search(lambda: thread.search(lambda: thread.step(this_thread))) == thread.step(this_thread)


def test_an_interrupt_ends_the_search_at_its_next_step() -> None:
    thread, ended = StepThread(), threading.Event()
    steps: list[int] = []

    def endless() -> None:
        try:
            while True:
                thread.step(lambda: steps.append(1))
                time.sleep(0.001)
        finally:
            ended.set()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            thread.search(endless)
        assert ended.wait(LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    made = len(steps)
    assert thread.search(lambda: thread.step(this_thread)) != this_thread()
    assert len(steps) == made > 0


def test_it_ends_with_its_owner() -> None:
    thread = StepThread()
    name = thread.step(this_thread)
    running = next(t for t in threading.enumerate() if t.name == name)
    del thread
    gc.collect()
    running.join(LONG)
    assert not running.is_alive()
