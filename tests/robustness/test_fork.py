"""Only the process that loaded an engine may use it; its forks get an error and do no harm."""

import copy
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from ragengine import AnswerStream, Generator, RagEngine, Retriever
from ragengine.errors import ProcessError
from ragengine.retrieval.index import PassageIndex
from tests.robustness import forking
from tests.support.paths import ROOT, WORLDFACTS

FOLDERS = WORLDFACTS / "bundle", WORLDFACTS / "index"
ENDED = 3
"""The exit status of a child that ended normally."""
CHILDREN = {
    "nothing": "ended",
    "close": "closed",
    "collect": "collected",
    "load again": "Reykjavik",
    "load in a thread": "Reykjavik",
    "twice": "Reykjavik (3, 'collected')",
}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """The report of a process and its forks (forking.py)."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.robustness.forking", *map(str, FOLDERS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_fork_is_refused_with_both_processes_and_the_remedy(seen: dict[str, Any]) -> None:
    status, said = seen["cases"]["refusals"]
    assert status == ENDED
    sentence = (
        r"ProcessError: This (RagEngine|Retriever|Generator|PassageIndex|AnswerStream) was loaded in process "
        rf"{seen['process']} and cannot be used in its fork \d+; load it in each process, after the fork\."
    )
    unlike = {name: text for name, text in json.loads(said).items() if not re.fullmatch(sentence, text)}
    assert unlike == {}


@pytest.mark.parametrize("case", CHILDREN)
def test_a_fork_ends(seen: dict[str, Any], case: str) -> None:
    assert seen["cases"][case] == [ENDED, CHILDREN[case]]


def test_a_fork_of_multiprocessing_can_load_its_own(seen: dict[str, Any]) -> None:
    assert seen["cases"]["multiprocessing"] == [0, "ProcessError Reykjavik"]


def test_a_fork_while_other_threads_ask_finds_no_lock_held(seen: dict[str, Any]) -> None:
    assert seen["cases"]["busy"] == [[ENDED, "ProcessError Reykjavik"]] * 3


def test_spawned_processes_answer() -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(forking.answered, *FOLDERS) for _ in range(2)]
        assert [future.result(timeout=120) for future in futures] == ["Reykjavik"] * 2


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", ["RagEngine", "Retriever", "Generator", "PassageIndex", "AnswerStream"])
def test_what_is_loaded_cannot_be_sent(name: str, send: Callable[[Any], Any]) -> None:
    sendable = {
        "RagEngine": RagEngine,
        "Retriever": Retriever,
        "Generator": Generator,
        "PassageIndex": PassageIndex,
        "AnswerStream": AnswerStream,
    }
    with pytest.raises(ProcessError, match=f"^This {name} cannot be pickled or copied, .* load it there.$"):
        send(sendable[name].__new__(sendable[name]))
