"""Damaged and forged files give a typed error or a right answer, and never a crash, a hang or a wrong answer.

The cases are in :mod:`tests.robustness.mutated` and run in child processes.  The fast test runs a fixed
sample; the ``slow`` one runs all.
"""

import sys
from pathlib import Path

import pytest

from tests.robustness.children import run_cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and read as Linux has it")

LEAST_OF_EACH = {
    "arrays": 100,
    "datasets_folders": 50,
    "factories": 15,
    "faiss_streams": 150,
    "folders": 100,
    "foreign": 150,
    "large_texts": 40,
    "manifests": 20,
    "onnx_graphs": 30,
    "stores": 40,
}
"""The least number of answers, and of refusals, for each kind: with fewer the cases would prove little."""
each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.xdist_group(f"mutated-{kind}")) for kind in LEAST_OF_EACH]
)
"""The kinds share nothing, and each takes long: any worker of pytest-xdist may run one."""


@each_kind
def test_damaged_files_are_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    report = run_cases(f"tests.robustness.mutated.{kind}", tmp_path)
    assert not report.failures, str(report)
    assert min(len(report.answered), len(report.refused)) >= LEAST_OF_EACH[kind], str(report)


@pytest.mark.slow
@each_kind
def test_very_many_damaged_files(kind: str, tmp_path: Path) -> None:
    report = run_cases(f"tests.robustness.mutated.{kind}", tmp_path, exhaustive=True)
    assert not report.failures, str(report)
