"""The summary of single figures: means, groups, calibration, and the questions that have no answer."""

import json
import math

import pytest

from ragengine.evaluation import Measured, Prediction, Question, Source, measure, report
from ragengine.evaluation.statistics import Resampling
from ragengine_bench.parity.pairs import Pair
from tests.support.questions import known_questions

QUICK = Resampling(resamples=50)


@pytest.fixture(scope="module")
def asked(pair: Pair) -> list[Question]:
    return known_questions(pair)


def test_a_report_has_groups_intervals_and_the_unanswerable_apart(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, asked, n_docs=5)
    result = report(figures, resampling=QUICK).to_dict()
    assert result["types"]["t"]["n"] == 2
    assert result["types"]["t"]["exact_match"] == 1
    assert result["types"]["u"]["exact_match"] == 0
    assert result["kinds"] == {"k": result["kinds"]["k"]}
    low, high = result["intervals"]["exact_match"]
    assert low <= result["exact_match"] <= high
    assert result["unanswerable"]["n"] == 1
    probability = math.exp(pair.engine.generate(asked[3].question, n_docs=5).log_prob)
    assert result["unanswerable"]["probability"] == pytest.approx(probability, rel=1e-4)
    assert sum(one["n"] for one in result["calibration"]["bins"]) == 3
    assert json.loads(json.dumps(result, allow_nan=False)) == result

    none = report(figures[3:], resampling=QUICK).to_dict()
    assert (none["n"], none["exact_match"], none["recall@5"]) == (0, None, None)
    assert (
        not {"intervals", "bootstrap"} & report(figures, resampling=Resampling(resamples=0)).to_dict().keys()
    )


def test_a_regex_among_labels_is_in_no_calibration() -> None:
    said = Prediction("yes", 0.5, ())
    asked = [(Question("a", ("yes",)), {"label_accuracy": 1.0}), (Question("b", (".",), regex=True), {})]
    found = report([Measured(q, said, values) for q, values in asked], task="classification")
    assert found.calibration is not None
    assert found.calibration.brier == pytest.approx(0.25)


def test_a_number_that_json_does_not_have_is_none() -> None:
    said = Prediction("yes", 0.5, ())
    rows = [Measured(Question("a", ("yes",)), said, {"exact_match": 1.0, "log_likelihood": -math.inf})]
    source = Source("b", "i", None, {"eos_token_id": (1, 2)})
    found = report(rows, resampling=Resampling(0), source=source)
    assert found.figures["log_likelihood"] == -math.inf
    result = found.to_dict()
    assert result["log_likelihood"] is None
    assert result["measured"] == {
        "bundle": "b",
        "index": "i",
        "questions": None,
        "options": {"eos_token_id": [1, 2]},
        "filter": None,
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_comparison_is_part_of_the_first_evaluation() -> None:
    said = Prediction("yes", 0.5, ())
    first, second = (
        report([Measured(Question("a", ("yes",)), said, {"exact_match": value})], resampling=QUICK)
        for value in (0.0, 1.0)
    )
    both = first.compare(second)
    assert (both.n, both.figures, both.compared) == (first.n, first.figures, second)
    result = both.to_dict()
    assert list(result)[-2:] == ["compared", "comparison"]
    assert result["compared"] == second.to_dict()
    assert result["comparison"]["exact_match"] == {
        "n": 1, "first": 0.0, "second": 1.0, "difference": 1.0, "interval": [1.0, 1.0], "test": "mcnemar",
        "only_first": 0, "only_second": 1, "p": 1.0,
    }  # fmt: skip
