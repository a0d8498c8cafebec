"""The figures of a confidence against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from ragengine.evaluation.confidence import choose_threshold, judge, risk_coverage


def made(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences that are true of their answers, and which questions have an answer."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.beta(4, 1, count), 2)  # some are equal
    right = rng.random(count) < confidence
    return confidence, right, right | (rng.random(count) < 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_scikit_learn(seed: int) -> None:
    confidence, right, answerable = made(seed)
    found = judge(confidence, confidence**2, np.log(confidence + 0.01), right, answerable, 0.5)
    assert found.auroc_right == pytest.approx(roc_auc_score(right, confidence))
    assert found.auroc_answerable == pytest.approx(roc_auc_score(answerable, confidence))
    assert found.auroc_answerable_by_confidence == pytest.approx(roc_auc_score(answerable, confidence))
    answered = confidence >= 0.5
    assert found.answered == pytest.approx(answered.mean())
    assert found.error == pytest.approx(1 - right[answered].mean())
    assert found.reliability.brier == pytest.approx(np.mean((confidence - right) ** 2))
    assert found.reliability.ece < 0.1
    by_flag = judge(confidence, confidence, confidence, right, answerable, low=confidence < 0.5)
    assert (by_flag.answered, by_flag.error, by_flag.threshold) == (found.answered, found.error, None)


def test_the_curve_ends_with_every_question() -> None:
    confidence, right, _ = made(4)
    curve = risk_coverage(confidence, right)
    assert len(curve) == 100
    assert curve[-1] == (1.0, pytest.approx(1 - right.mean()))
    assert risk_coverage(np.array([0.9, 0.1]), np.array([True, False])) == ((0.5, 0.0), (1.0, 0.5))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_a_threshold_keeps_the_rate_with_certainty_and_no_lower_one_does(seed: int, rate: float) -> None:
    confidence, right, _ = made(seed)
    threshold = choose_threshold(confidence, right, rate)

    def holds(limit: float) -> bool:
        answered = confidence >= limit
        wrong = int((~right[answered]).sum())
        return bool(binom.cdf(wrong, answered.sum(), rate) <= 0.05)

    limits = np.unique(confidence)
    if threshold is None:
        assert not any(map(holds, limits))
    else:
        assert holds(threshold)
        assert not any(map(holds, limits[limits < threshold]))


def test_a_threshold_holds_for_other_questions() -> None:
    """Of 60 thresholds that allow 10 %, at most a few are in truth above it."""
    above = 0
    for seed in range(60):
        threshold = choose_threshold(*made(seed)[:2], 0.1)
        assert threshold is not None
        confidence, right, _ = made(1000 + seed, 20_000)
        above += 1 - right[confidence >= threshold].mean() > 0.1
    assert above <= 9


def test_without_both_kinds_there_is_no_area() -> None:
    every = np.ones(4, bool)
    found = judge(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4), np.zeros(4), every, every, 0.9)
    assert (found.auroc_right, found.auroc_answerable, found.error) == (None, None, None)
    assert found.answered == 0.0
    assert choose_threshold(np.ones(3), np.zeros(3, bool), 0.05) is None
