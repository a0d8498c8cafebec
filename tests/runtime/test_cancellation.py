"""A :class:`Stop` by itself; tests/robustness/test_deadline.py shows that every call obeys one."""

import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ragengine import Stop
from ragengine.errors import CancelledError, ClosedError, DeadlineError, InputError
from ragengine.runtime import cancellation
from ragengine.runtime.cancellation import NEVER


def test_a_deadline_counts_from_when_the_stop_is_made() -> None:
    stop = Stop(0.05)
    stop.check("at once")
    time.sleep(0.06)
    with pytest.raises(
        DeadlineError, match=r"^The deadline of 0\.05 s passed after 3 tokens; allow more time"
    ):
        stop.check("after 3 tokens")


def test_a_cancelled_call_says_how_far_it_came() -> None:
    cancel = threading.Event()
    stop = Stop(None, cancel)
    stop.check("at once")
    cancel.set()
    with pytest.raises(CancelledError, match=r"^The call was cancelled after 3 tokens\.$"):
        stop.check("after 3 tokens")


def test_arguments_of_a_call_make_one_stop() -> None:
    stop = Stop(10.0)
    assert Stop.of(stop, None) is stop
    assert Stop.of(None, None) is NEVER
    with pytest.raises(DeadlineError):
        Stop.of(1e-9, None).check("at once")
    with pytest.raises(InputError, match=r"^deadline is a Stop and cancel is given besides"):
        Stop.of(stop, threading.Event())


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan"), float("inf"), True, "1", 10**400])
def test_a_deadline_is_a_finite_number_of_seconds_above_0(deadline: Any) -> None:
    with pytest.raises(
        InputError, match=r"^deadline is .*; it must be a number of seconds above 0, or None\.$"
    ):
        Stop(deadline)


def test_cancel_is_an_event() -> None:
    with pytest.raises(InputError, match=r"^cancel is str; it must be a threading\.Event, or None\.$"):
        Stop(None, "yes")


def test_a_call_ends_with_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends() -> None:
        raise ClosedError("Python is ending.")

    monkeypatch.setattr(cancellation, "check_interpreter", ends)
    with pytest.raises(ClosedError):
        NEVER.check("at once")


@pytest.mark.parametrize("deadline", [Fraction(1, 10**9), np.float32(1e-9), 10**-9])
def test_a_deadline_is_any_real_number(deadline: Any) -> None:
    with pytest.raises(DeadlineError, match=r"^The deadline of 1e-09 s passed at once"):
        Stop(deadline).check("at once")
