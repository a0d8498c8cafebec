"""What every engine is given."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ragengine_bench.harness.process import Call
from ragengine_bench.harness.report import Report
from ragengine_bench.harness.runs import FIRST_WORD, Runs, Workload, _Entry
from ragengine_bench.peers import Contender
from ragengine_bench.roofline.roofline import Rates


def test_workloads_are_the_same_for_every_engine(tmp_path: Path) -> None:
    load = Workload(batch=2, documents=3, source=7)
    with (
        np.load(load.write(tmp_path / "one.npz", 60)) as one,
        np.load(load.write(tmp_path / "two.npz", 60)) as two,
    ):
        assert {name: one[name].shape for name in one} == {
            "ids": (2, 3, 7),
            "mask": (2, 3, 7),
            "scores": (2, 3),
        }
        assert all((one[name] == two[name]).all() for name in one)
        assert one["ids"].min() >= FIRST_WORD
        assert one["ids"].max() < 60


def test_only_ragengine_is_given_the_joint_search() -> None:
    assert "search" not in Workload(marginalize="sequence").options
    assert Workload(marginalize="sequence", search="joint").options["search"] == "joint"


class OneEngine(Runs):
    """Runs whose engine takes the seconds that the test gives, one after the other."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__(Report([], {}), Rates({}, 1.0), 3, 1.0, lambda: None, lambda _: None)
        self.left = seconds

    def _started(self, contender: Contender) -> Any:
        return contextlib.nullcontext(SimpleNamespace(loaded=Call(0.0, 0, None)))

    def _run(self, entry: Any, fresh: bool = False) -> Call:
        return Call(self.left.pop(0), 0, {"outputs": []})


@pytest.mark.parametrize(
    ("seconds", "runs", "noisy"),
    [
        ([1.0, 1.0, 1.1], 3, False),
        ([1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 8, False),  # one busy moment, which others outweigh
        ([1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0], 9, True),
    ],
)
def test_runs_that_spread_are_repeated(seconds: list[float], runs: int, noisy: bool) -> None:
    measured = OneEngine([9.0, *seconds])  # the first one warms up
    contender = Contender("one", "module:Class", {}, "")
    measured.question_batch("", ["Who?"], {}, [])  # no rows: nothing is noisy
    section = measured._section("generation", "", {})
    measured._by_turns([_Entry(section, contender, Workload(), None)])
    (row,) = section.rows
    assert len(row.samples) == runs
    assert section.is_noisy(row) is noisy
