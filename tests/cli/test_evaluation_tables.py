"""The tables of `ragengine eval` for people."""

import pytest

from ragengine.cli.evaluation_tables import print_evaluation
from ragengine.evaluation import Measured, Prediction, Question, report
from ragengine.evaluation.statistics import Resampling


def measured(right: float) -> list[Measured]:
    said = Prediction("a", 0.5, ())
    rows = [
        Measured(Question(str(row), ("a",), type="t"), said, {"exact_match": right, "log_likelihood": -1.25})
        for row in range(4)
    ]
    return [*rows, Measured(Question("none", ()), said, {})]


def test_figures_groups_and_comparison_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (report(measured(right), resampling=Resampling(20)) for right in (0.0, 1.0))
    print_evaluation(first.compare(second))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["n", "4"] in rows
    assert ["exact_match", "0.0", "%", "0.0", "–", "0.0", "%"] in rows
    assert ["log_likelihood", "-1.250", "-1.250", "–", "-1.250"] in rows
    assert ["f1", "–"] in rows
    assert ["t", "4", "0.0", "%"] in rows
    assert ["calibration", "error", "50.0", "%,", "Brier", "score", "0.2500"] in rows
    said = " ".join(word for row in rows for word in row)
    assert "mean probability 50.0 %; AUROC of the answers' probability 0.500" in said
    assert ["exact_match", "0.0", "%", "100.0", "%", "100.0", "%", "100.0", "–", "100.0", "%", "0.1250",
            "mcnemar"] in rows  # fmt: skip


def test_without_resampling_there_are_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(report(measured(1.0), resampling=Resampling(0)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["exact_match", "100.0", "%"] in rows
