"""Closing, forking and the end of the interpreter, on objects that load nothing.

tests/robustness/test_closing.py and test_fork.py show the same of engines, retrievers and generators.
"""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragengine.errors import ClosedError, ProcessError
from ragengine.runtime import lifecycle
from ragengine.runtime.lifecycle import (
    LONGEST_WAIT_SECONDS,
    OneProcess,
    Resource,
    check_interpreter,
    while_open,
)


class Loaded(Resource):
    """Counts its calls and releases; a call may do something while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.releases = 0

    @while_open
    def call(self, meanwhile: Callable[[], Any] = lambda: None) -> Any:
        self.calls += 1
        return meanwhile()

    def _release(self) -> None:
        self.releases += 1


def test_a_closed_object_refuses_calls_and_releases_once() -> None:
    with Loaded() as loaded:
        loaded.call()
        assert loaded.releases == 0
    for _ in range(2):
        loaded.close()
    with pytest.raises(ClosedError, match=r"^This Loaded was closed; load it again\.$"):
        loaded.call()
    assert (loaded.calls, loaded.releases) == (1, 1)


def test_a_call_that_closes_its_object_finishes_and_may_call_on() -> None:
    loaded = Loaded()

    def close() -> int:
        loaded.close()
        assert loaded.releases == 0
        loaded.call()
        return loaded.releases

    assert loaded.call(close) == 0
    assert (loaded.calls, loaded.releases) == (2, 1)


def test_the_last_of_several_calls_releases() -> None:
    loaded, running, go_on = Loaded(), threading.Barrier(4), threading.Event()

    def wait() -> None:
        running.wait()
        go_on.wait()

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(loaded.call, wait) for _ in range(3)]
        running.wait()
        loaded.close()
        with pytest.raises(ClosedError):
            loaded.call()
        assert loaded.releases == 0
        go_on.set()
        for call in calls:
            call.result(timeout=20)
    assert loaded.releases == 1


def test_a_call_that_raises_has_ended() -> None:
    loaded = Loaded()
    with pytest.raises(ZeroDivisionError):
        loaded.call(lambda: 1 / 0)
    loaded.close()
    assert loaded.releases == 1
    assert lifecycle._native_calls.threads() == []


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_one_process_is_not_copied(send: Callable[[Any], Any]) -> None:
    with pytest.raises(ProcessError, match=r"^This OneProcess cannot be pickled or copied"):
        send(OneProcess())


def in_a_child(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in another Python, which must not hang."""
    start = "import os, threading, time\nfrom ragengine.runtime import lifecycle\n"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", start + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_fork_is_refused_and_closes_nothing() -> None:
    done = in_a_child("""
        class Loaded(lifecycle.Resource):
            @lifecycle.while_open
            def call(self): pass
            def _release(self): print("released in", os.getpid() == parent, flush=True)

        parent, loaded = os.getpid(), Loaded()
        if os.fork() == 0:
            loaded.close()
            try:
                loaded.call()
            except lifecycle.ProcessError as error:
                said = str(error).replace(str(parent), "PARENT").replace(str(os.getpid()), "CHILD")
                print(said, flush=True)
            os._exit(0)
        os.wait()
        loaded.close()
    """)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "This Loaded was loaded in process PARENT and cannot be used in its fork CHILD; load it in each "
        "process, after the fork.",
        "released in True",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize(("leaked", "said"), [(True, "parent\n"), (False, "child\nparent\n")])
def test_a_destructor_runs_in_no_fork_of_what_is_leaked_there(leaked: bool, said: str) -> None:
    done = in_a_child(f"""
        class Owner:
            def __del__(self): print("child" if child else "parent", flush=True)

        owner = Owner()
        if {leaked}:
            lifecycle.leak_in_forks(owner)
        child = os.fork() == 0
        if not child:
            os.wait()
        del owner
    """)
    assert (done.stderr, done.stdout) == ("", said)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_only_the_thread_that_came_through_a_fork_has_lost_its_openmp_threads() -> None:
    done = in_a_child("""
        print(lifecycle.lost_openmp_threads(), flush=True)
        if os.fork() == 0:
            found = []
            thread = threading.Thread(target=lambda: found.append(lifecycle.lost_openmp_threads()))
            thread.start()
            thread.join()
            print(lifecycle.lost_openmp_threads(), *found, flush=True)
            os._exit(0)
        os.wait()
    """)
    assert (done.stderr, done.stdout) == ("", "False\nTrue False\n")


def test_the_end_of_the_interpreter_waits_for_native_code_and_starts_no_more() -> None:
    done = in_a_child("""
        started = threading.Event()

        @lifecycle.awaited_at_exit
        def native():
            started.set()
            time.sleep(0.3)
            print("returned", flush=True)

        @lifecycle.awaited_at_exit
        def late(): print("must not run", flush=True)

        def work():
            native()
            late()

        threading.Thread(target=work, daemon=True).start()
        started.wait()
    """)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "returned\n")


def test_the_end_of_the_interpreter_waits_no_longer_than_it_says() -> None:
    began = time.monotonic()
    done = in_a_child("""
        lifecycle.LONGEST_WAIT_SECONDS = 0.2
        started = threading.Event()

        @lifecycle.awaited_at_exit
        def native():
            started.set()
            time.sleep(50)

        threading.Thread(target=native, daemon=True).start()
        started.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < LONGEST_WAIT_SECONDS


def test_a_thread_goes_on_while_nothing_ends() -> None:
    check_interpreter()


@pytest.mark.parametrize("way", ["call", "close"])
def test_ctrl_c_anywhere_in_the_book_keeping_leaves_nothing_behind(way: str) -> None:
    """Python may raise KeyboardInterrupt before any line of ours."""
    for line in range(1, 200):
        loaded, seen = Loaded(), 0

        def interrupt(frame: Any, event: str, argument: Any, line: int = line) -> Any:
            nonlocal seen
            if frame.f_code.co_filename != lifecycle.__file__:
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    raise KeyboardInterrupt
            return interrupt

        traced = sys.gettrace()
        sys.settrace(interrupt)
        try:
            loaded.call(loaded.close) if way == "call" else loaded.close()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(traced)
        assert lifecycle._native_calls.threads() == []
        loaded.close()
        assert loaded.releases >= 1, f"the interrupt before line {line} left a call"
        if seen < line:
            break
    assert line > 5
