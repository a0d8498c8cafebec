"""Intervals, paired tests and calibration: hand-worked values, scipy's, and what must always hold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ragengine.errors import InputError
from ragengine.evaluation.statistics import (
    MOST_RESAMPLES,
    DoubleArray,
    Resampling,
    auroc,
    bootstrap_intervals,
    calibration,
    mcnemar,
    paired_bootstrap,
    permutation_test,
)

QUICK = Resampling(resamples=200)
UNIT = st.floats(0, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=40), st.integers(0, 5))
def test_an_interval_is_inside_the_values_and_around_the_mean(values: list[float], seed: int) -> None:
    column = np.array(values)[:, None]
    low, high = bootstrap_intervals(column, Resampling(resamples=200, confidence=0.999, seed=seed))[0]
    assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= max(values) + 1e-9


def test_an_interval_is_that_of_scipy_and_the_same_for_a_seed() -> None:
    values = np.random.default_rng(1).beta(2, 1, 300)
    ours = bootstrap_intervals(values[:, None], Resampling(resamples=4000))[0]
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.003)
    np.testing.assert_array_equal(ours, bootstrap_intervals(values[:, None], Resampling(resamples=4000))[0])


def test_intervals_leave_out_questions_without_the_figure() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.5], [1.0, 0.5]])
    np.testing.assert_array_equal(bootstrap_intervals(values, QUICK)[1], [0.5, 0.5])


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_intervals(
            (generator.random((150, 1)) < 0.7).astype(float), Resampling(resamples=200, seed=trial)
        )[0]
        covered += low <= 0.7 <= high
    assert 178 <= covered <= 200  # 190 expected; 178 has a chance under 1/1000 at 95 %


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_test_of_the_discordant(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs, float).T
    only, discordant = int(np.sum(first > second)), int(np.sum(first != second))
    expected = stats.binomtest(only, discordant, 0.5).pvalue if discordant else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_thousands_of_questions() -> None:
    first = np.repeat([1.0, 0.0], [2100, 1900])
    assert mcnemar(first, 1 - first) == pytest.approx(stats.binomtest(2100, 4000, 0.5).pvalue)


def test_the_permutation_test_is_that_of_scipy() -> None:
    differences = np.random.default_rng(3).normal(0.1, 0.5, 80)
    ours = permutation_test(differences, Resampling(resamples=4000))
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=4000, rng=4
    )
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)
    assert 0.01 < ours < 0.5
    assert permutation_test(np.full(40, 0.25), Resampling(resamples=999)) == 1 / 1000
    assert permutation_test(np.zeros(5), QUICK) == 1


def mean_of(sums: DoubleArray) -> float:
    return float(sums[0] / sums[1])


def test_the_paired_bootstrap_of_a_mean_is_that_of_the_differences() -> None:
    generator = np.random.default_rng(6)
    ones = np.ones(100)
    first = np.stack([generator.random(100), ones], axis=1)
    second = np.stack([first[:, 0] + generator.normal(0, 0.3, 100), ones], axis=1)
    interval, p = paired_bootstrap(first, second, mean_of, Resampling(resamples=4000))
    expected = bootstrap_intervals((second - first)[:, :1], Resampling(resamples=4000))[0]
    np.testing.assert_allclose(interval, expected)
    assert p == pytest.approx(stats.ttest_rel(first[:, 0], second[:, 0]).pvalue, abs=0.02)
    assert 0.02 < p < 0.5
    assert paired_bootstrap(first, first, mean_of, QUICK) == ((0, 0), 1)
    assert paired_bootstrap(first, first + np.array([1, 0]), mean_of, QUICK)[1] == 1 / 201


def test_calibration_by_hand() -> None:
    # bin 0.9-1: probability 0.95, accuracy 1/2; bin 0.2-0.3: probability 0.25, accuracy 0; 1.0 is in the last
    figures = calibration([0.9, 1.0, 0.25, 0.25], [1, 0, 0, 0])
    assert figures.ece == pytest.approx((2 * 0.45 + 2 * 0.25) / 4)
    assert figures.brier == pytest.approx((0.01 + 1 + 2 * 0.0625) / 4)
    assert [one.n for one in figures.bins] == [2, 2]
    assert calibration([1.0, 0.0], [1, 0]).ece == 0


@given(st.lists(UNIT, min_size=1, max_size=12), st.lists(UNIT, min_size=1, max_size=12))
def test_auroc_is_the_mann_whitney_statistic(positive: list[float], negative: list[float]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))


def test_as_many_resamples_as_memory_holds() -> None:
    assert Resampling(MOST_RESAMPLES).resamples == MOST_RESAMPLES
    with pytest.raises(InputError, match=r"^resamples is 1000001; at most 1000000 are drawn"):
        Resampling(MOST_RESAMPLES + 1)


@pytest.mark.parametrize("wrong", [{"resamples": -1}, {"resamples": 1.0}, {"seed": -1}, {"seed": True}])
def test_resampling_takes_whole_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"^(resamples|seed) is .*; it must be a whole number of at least 0\.$"
    ):
        Resampling(**wrong)
