"""What every engine is given."""

from pathlib import Path

import numpy as np

from ragengine_bench.harness.runs import FIRST_WORD, Workload


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
