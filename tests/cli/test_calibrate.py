"""`ragengine calibrate`: what it prints, and what it refuses before it answers anything."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragengine.cli.calibration_table import print_report
from ragengine.cli.main import cli
from ragengine.confidence.model import CALIBRATION
from tests.calibration.conftest import BUNDLE, Calibrated, copied
from tests.calibration.conftest import calibrated as calibrated  # the fixture
from tests.support.commands import run
from tests.support.paths import WORLDFACTS


def test_the_figures_are_printed(calibrated: Calibrated, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(calibrated.report, calibrated.index)
    printed = capsys.readouterr().out
    test = calibrated.report.test
    assert test is not None
    assert f"{test.answered * 100:.1f} %" in printed
    assert f"{calibrated.report.cross_validated.auroc_right:.3f}" in printed
    assert f"under {calibrated.report.model.threshold:.3f} are flagged low_confidence" in printed


def test_the_command_writes_the_same_file(calibrated: Calibrated, tmp_path: Path) -> None:
    index = copied(calibrated.index, tmp_path)
    (index / CALIBRATION).unlink()
    arguments = [str(BUNDLE), str(index), str(calibrated.questions), "--error-rate", "0.3", "--json"]
    plot = tmp_path / "curves.png"
    arguments += ["--device", "cpu", "--threads", "1", "--plot", str(plot), "--test", str(calibrated.test)]
    done = CliRunner().invoke(cli, ["calibrate", *arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["threshold"] == pytest.approx(calibrated.report.model.threshold, abs=1e-3)
    assert found["test"]["n"] == 32
    assert (index / CALIBRATION).is_file()
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib"])
def test_what_is_missing_is_said_before_anything_is_answered(missing: str, tmp_path: Path) -> None:
    questions = WORLDFACTS / "questions.jsonl"
    done = run("calibrate", tmp_path, tmp_path, questions, "--plot", tmp_path / "a.png", blocked=(missing,))
    assert done.returncode == 1
    assert 'run pip install "ragengine[' in done.stderr
    assert "Traceback" not in done.stderr


def test_answering_needs_no_scikit_learn() -> None:
    done = run(
        "ask", WORLDFACTS / "bundle", WORLDFACTS / "index", "--json", "--verify", "size",
        "What is the capital of Iceland?", blocked=("sklearn", "scipy", "matplotlib"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["confidence"] is not None


@pytest.mark.parametrize("rate", ["0", "1", "x"])
def test_a_rate_is_a_share(rate: str) -> None:
    done = CliRunner().invoke(cli, ["calibrate", "b", "i", "q", "--error-rate", rate])
    assert done.exit_code == 2
