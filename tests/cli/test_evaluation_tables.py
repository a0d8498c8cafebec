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


def test_wrong_answers_stand_beside_what_was_expected(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(measured(0.0), resampling=Resampling(0))
    print_evaluation(found, wrong=2)
    said = capsys.readouterr().out
    assert said.count("a   expected: a") == 2
    assert "wrong answers, 2 of 4:" in said
    print_evaluation(found)
    print_evaluation(report(measured(1.0), resampling=Resampling(0)), wrong=2)
    assert "expected" not in capsys.readouterr().out


def test_the_confidence_is_printed_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = Prediction("a", 0.5, (), confidence=0.75, answerability=0.9)
    doubted = Prediction("b", 0.5, (), confidence=0.25, answerability=0.5, low=True)
    rows = [Measured(Question("q", ("a",)), said, {"exact_match": 1.0})] * 3
    rows.append(Measured(Question("none", ()), doubted, {}))
    print_evaluation(report(rows, resampling=Resampling(0)))
    printed = " ".join(capsys.readouterr().out.split())
    assert "confidence of all 4 questions: 75.0 % are not low_confidence, of which 0.0 % are wrong" in printed
    assert "AUROC of right against wrong 1.000, calibration error 25.0 %" in printed


def test_without_resampling_there_are_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(report(measured(1.0), resampling=Resampling(0)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["exact_match", "100.0", "%"] in rows
