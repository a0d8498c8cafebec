"""The tally of a run: it is printed, and too many ties fail the run, in one process or several."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CONFTEST = (
    "from tests.support.tally import pytest_runtest_logreport, pytest_sessionfinish, pytest_terminal_summary"
)
TESTS = """
import pytest
from tests.support.tally import PROPERTY, Tally

@pytest.mark.parametrize("number", range(100))
def test_one(number, record_property):
    record_property(PROPERTY, Tally("token", configurations=1, ties=int(number < {ties})).as_property())
"""


def run(folder: Path, ties: int, processes: int) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_ties.py").write_text(TESTS.format(ties=ties))
    options = ["-q", "-p", "no:cacheprovider", "-n", str(processes), "--rootdir", str(folder), str(folder)]
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(("ties", "status"), [(3, 0), (4, 1)])
def test_more_than_three_percent_of_ties_fail_the_run(
    tmp_path: Path, ties: int, status: int, processes: int
) -> None:
    done = run(tmp_path, ties, processes)
    assert done.returncode == status, done.stdout + done.stderr
    assert f"RAG-Token: 100 configurations, {ties} ties" in done.stdout
    assert ("FAILED: more than 3% ties" in done.stdout) == bool(status)
    assert "100 passed" in done.stdout.splitlines()[-1]
