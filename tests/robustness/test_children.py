"""The harness of the mutated files distinguishes every way a case can end, and continues after it."""

import sys
from pathlib import Path

import pytest

from tests.robustness.children import run_cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and read as Linux has it")


def test_every_way_to_end_is_distinguished(tmp_path: Path) -> None:
    report = run_cases("tests.robustness.mutated.selfcheck", tmp_path, seconds=8)
    assert report.answered == ["answers", "answers after a crash", "answers at last"]
    assert report.refused == {"refuses": "It is no index.", "refuses in two lines": r"No.\nNever."}
    told = {
        "segfaults": "SIGSEGV",
        "aborts": "SIGABRT",
        "is killed": "SIGKILL",
        "exits": "exits",
        "hangs": "hangs",
        "raises": "IndexError",
        "interrupts": "KeyboardInterrupt",
        "takes all memory": "MemoryError",
        "takes much memory": "touches ",
        "answers wrongly": "AssertionError",
        "answers what it must refuse": "answered, though it must be refused",
        "refuses what it must answer": "refused, though it must be answered",
        "refuses without a word of it": "without a word of 'yes'",
    }
    assert report.failures.keys() == told.keys()
    for name, what in told.items():
        assert what in report.failures[name]
