"""Damaged and forged files: a typed sentence or a right answer, and never a crash, a hang or a lie.

The cases are in :mod:`tests.robustness.mutated` and run in child processes.  Here is a sample of them, the
same one every time; all of them are ``slow``.
"""

import sys
from pathlib import Path

import pytest

from tests.robustness.children import run_cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and read as Linux has it")

LEAST_OF_EACH = {
    "arrays": 100,
    "datasets_folders": 50,
    "faiss_streams": 150,
    "folders": 100,
    "foreign": 150,
    "large_texts": 40,
    "manifests": 20,
    "onnx_graphs": 30,
    "stores": 40,
}
"""Answers, and refusals, that there must be of each kind: fewer would say that the cases are no good."""


@pytest.mark.parametrize("kind", LEAST_OF_EACH)
def test_damaged_files_are_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    report = run_cases(f"tests.robustness.mutated.{kind}", tmp_path)
    assert not report.failures, str(report)
    assert min(len(report.answered), len(report.refused)) >= LEAST_OF_EACH[kind], str(report)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAST_OF_EACH)
def test_very_many_damaged_files(kind: str, tmp_path: Path) -> None:
    report = run_cases(f"tests.robustness.mutated.{kind}", tmp_path, exhaustive=True)
    assert not report.failures, str(report)
