"""Work on CUDA waits while a step is captured, and a capture for the work that runs."""

import gc
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from ragengine.runtime.cuda_capture import CUDA_WORK, CaptureLock
from ragengine.runtime.sessions import device_work

SHORT, LONG = 0.05, 10.0


def in_a_thread(
    enter: Callable[[], AbstractContextManager[None]],
) -> tuple[threading.Thread, threading.Event]:
    """A thread that goes through ``enter``, and an event that is set when it was in."""
    entered = threading.Event()

    def work() -> None:
        with enter():
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, entered


def test_work_is_shared() -> None:
    lock = CaptureLock()
    with lock.shared():
        thread, entered = in_a_thread(lock.shared)
        assert entered.wait(LONG)
        thread.join()


@pytest.mark.parametrize("first", ["shared", "exclusive"])
@pytest.mark.parametrize("second", ["shared", "exclusive"])
def test_a_capture_is_alone(first: str, second: str) -> None:
    if first == second == "shared":
        pytest.skip("that is no capture")
    lock = CaptureLock()
    with getattr(lock, first)():
        thread, entered = in_a_thread(getattr(lock, second))
        assert not entered.wait(SHORT)
    assert entered.wait(LONG)
    thread.join()


def test_work_that_comes_later_waits_for_a_waiting_capture() -> None:
    """Otherwise a busy service would never capture."""
    lock = CaptureLock()
    with lock.shared():
        capture, captured = in_a_thread(lock.exclusive)
        time.sleep(SHORT)
        later, entered = in_a_thread(lock.shared)
        assert not entered.wait(SHORT)
    assert captured.wait(LONG)
    assert entered.wait(LONG)
    capture.join()
    later.join()


@pytest.mark.parametrize("outer", ["shared", "exclusive"])
def test_a_thread_may_ask_again(outer: str) -> None:
    """Such as a destructor that runs while a step does."""
    lock = CaptureLock()
    with getattr(lock, outer)():
        with lock.shared():
            pass
        thread, entered = in_a_thread(lock.exclusive)
        assert not entered.wait(SHORT)
        with lock.shared():  # with a capture waiting, too
            pass
    assert entered.wait(LONG)
    thread.join()


@pytest.mark.parametrize("form", ["shared", "exclusive"])
def test_an_error_leaves_the_lock_free(form: str) -> None:
    lock = CaptureLock()
    with pytest.raises(KeyError), getattr(lock, form)():
        raise KeyError("in a run")
    with lock.exclusive():
        pass


def test_many_threads_never_overlap_a_capture() -> None:
    lock, inside, faults = CaptureLock(), [0, 0], []

    def work(number: int) -> None:
        for turn in range(60):
            capture = (number + turn) % 7 == 0
            with lock.exclusive() if capture else lock.shared():
                inside[capture] += 1
                if inside[True] > 1 or (inside[True] and inside[False]):
                    faults.append((number, turn))
                if turn % 20 == 0:
                    gc.collect()
                inside[capture] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert faults == []


def test_a_forked_child_begins_anew() -> None:
    """The thread that captures does not exist there."""
    with CUDA_WORK.exclusive():
        child = os.fork()
        if not child:
            _thread, entered = in_a_thread(CUDA_WORK.exclusive)
            os._exit(0 if entered.wait(LONG) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_cpu_waits_for_nothing() -> None:
    with CUDA_WORK.exclusive():
        thread, entered = in_a_thread(lambda: device_work("cpu"))
        assert entered.wait(LONG)
        thread.join()
    with device_work("cuda", capture=True):
        thread, entered = in_a_thread(lambda: device_work("cuda"))
        assert not entered.wait(SHORT)
    thread.join()
