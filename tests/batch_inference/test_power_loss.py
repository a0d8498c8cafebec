"""Power failures while a file of answers is written: the next run goes on from what was on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch_inference.power_loss import sites
from tests.robustness.conftest import file_calls  # noqa: F401  # a fixture
from tests.support.paths import ROOT


def told(library: Path, work: Path, *arguments: str) -> tuple[list[str], list[str]]:
    """The names of the calls, and the broken promises."""
    work.mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-m", "tests.batch_inference.power_loss", work, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    return found["steps"], found["faults"]


def test_answers_are_on_disk_before_they_take_their_place(file_calls: Path, tmp_path: Path) -> None:  # noqa: F811
    work = tmp_path / "work"
    work.mkdir()
    (work / "questions.txt").write_text("What is the capital of Iceland?\nAnd of Peru?\nAnd of Chad?\n")
    steps, faults = told(file_calls, work, "answers")
    assert faults == []
    assert steps.count("rename") == 2  # the state, the output
    assert (work / "answers.jsonl").read_text("utf-8").count("\n") == 3


@pytest.mark.parametrize("before", ["new", "old"])
def test_whatever_a_power_failure_loses_the_next_run_writes_the_file(
    before: str,
    file_calls: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    steps, faults = told(file_calls, tmp_path / "work", "lost", before)
    assert faults == []
    assert steps.count("write") >= 5


def test_no_sync_can_be_left_out(file_calls: Path, tmp_path: Path) -> None:  # noqa: F811
    assert len(sites()) >= 3
    for number, site in enumerate(sites()):
        _, faults = told(file_calls, tmp_path / str(number), "order", "new", str(number))
        assert faults, f"nobody misses {site}"
