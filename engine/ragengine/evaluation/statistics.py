"""Intervals, paired tests and calibration, with numpy alone; every draw comes from a seed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.validation import check_whole_number

N_BINS = 10
MOST_RESAMPLES = 1_000_000
"""The figures of each sample are kept in memory, some hundred bytes."""


@dataclass(frozen=True)
class Resampling:
    """How intervals and tests are drawn.

    resamples    how many samples are drawn, at most :data:`MOST_RESAMPLES`; with 0 there are no intervals
                 and no tests but McNemar's
    confidence   the share of the samples that an interval holds
    seed         of the random generator
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("resamples", "seed"):
            check_whole_number(name, getattr(self, name), least=0)
        if self.resamples > MOST_RESAMPLES:
            raise InputError(
                f"resamples is {short_repr(self.resamples)}; at most {MOST_RESAMPLES} are drawn, since all "
                "are kept in memory."
            )

    @property
    def percentiles(self) -> tuple[float, float]:
        """The ends of the interval, in percent."""
        outside = 50 * (1 - self.confidence)
        return outside, 100 - outside


def bootstrap_intervals(values: DoubleArray, resampling: Resampling) -> DoubleArray:
    """Percentile bootstrap intervals of column means (Efron 1979); rows are drawn with replacement.

    Args:
        values: figures of questions, [N, M]; NaN where a question does not have the figure, which the mean
            leaves out.
        resampling: how often rows are drawn, and from which seed.

    Returns:
        The lower and upper end for each column, [M, 2].
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    means = np.empty((resampling.resamples, values.shape[1]))
    for row, weights in zip(means, _draws(len(values), resampling), strict=True):
        counts = weights @ known
        row[:] = np.divide(weights @ filled, counts, out=np.full(len(row), np.nan), where=counts > 0)
    ends: DoubleArray = np.nanpercentile(means, resampling.percentiles, axis=0).T
    return ends


def paired_bootstrap(
    first: DoubleArray, second: DoubleArray, figure: Callable[[DoubleArray], float], resampling: Resampling
) -> tuple[tuple[float, float], float]:
    """The difference of a figure of all questions together: its percentile interval and its two-sided p.

    p is (1 + draws as far from their mean as the difference is from 0) / (1 + draws): the draws, shifted to a
    difference of 0, are the null hypothesis (Riezler and Maxwell 2005).

    Args:
        first: what the figure sums of each question for the first system, [N, M].
        second: the same for the second; the same rows are drawn for both.
        figure: the figure of the sums over all questions, [M].
        resampling: how often rows are drawn, and from which seed.
    """
    observed = figure(second.sum(axis=0)) - figure(first.sum(axis=0))
    drawn = np.array(
        [figure(weights @ second) - figure(weights @ first) for weights in _draws(len(first), resampling)]
    )
    extreme = int(np.sum(np.abs(drawn - drawn.mean()) >= abs(observed) - 1e-9))
    low, high = np.percentile(drawn, resampling.percentiles).tolist()
    return (low, high), (1 + extreme) / (1 + len(drawn))


def _draws(count: int, resampling: Resampling) -> Iterator[DoubleArray]:
    """How often each of ``count`` questions is in a sample of that size, drawn with replacement."""
    generator = np.random.default_rng(resampling.seed)
    for _ in range(resampling.resamples):
        drawn = generator.integers(count, size=count)
        yield np.bincount(drawn, minlength=count).astype(np.float64)


def mcnemar(first: DoubleArray, second: DoubleArray) -> float:
    """The exact two-sided p of McNemar's test that two systems, [N] of 0 and 1, are right equally often.

    Under the null hypothesis, each question that only one system has right is either's with probability 1/2.
    """
    only_first, only_second = int(np.sum(first > second)), int(np.sum(first < second))
    discordant = only_first + only_second
    tail = term = 1  # binomial coefficients, in whole numbers
    for k in range(min(only_first, only_second)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**discordant))


def permutation_test(differences: DoubleArray, resampling: Resampling) -> float:
    """The two-sided p of the hypothesis that paired differences [N] have mean 0, by random signs.

    Fisher's randomisation test: (1 + draws at least as extreme) / (1 + draws), so it is never 0.
    """
    generator = np.random.default_rng(resampling.seed)
    observed, extreme = abs(differences.sum()), 0
    for _ in range(resampling.resamples):
        signs = generator.integers(2, size=len(differences)) * 2 - 1
        extreme += abs(signs @ differences) >= observed - 1e-9
    return (1 + extreme) / (1 + resampling.resamples)


@dataclass(frozen=True)
class CalibrationBin:
    """The answers whose probabilities are from ``low`` to ``high``: how many, and the two means."""

    low: float
    high: float
    n: int
    probability: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of answers are from the rate at which those answers are right.

    ece     the expected calibration error (Guo et al. 2017): the mean distance between the mean probability
            and the accuracy of a bin, over 10 bins of equal width weighted by their answers
    brier   the mean squared difference between probability and 1 (right) or 0 (Brier 1950)
    bins    those bins that hold an answer
    """

    ece: float
    brier: float
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        bins = [
            {"from": b.low, "to": b.high, "n": b.n, "probability": b.probability, "accuracy": b.accuracy}
            for b in self.bins
        ]
        return {"ece": self.ece, "brier": self.brier, "bins": bins}


def calibration(probabilities: Sequence[float], right: Sequence[float]) -> Calibration:
    """The calibration of one answer or more.

    Args:
        probabilities: of each answer, 0 to 1.
        right: whether it is right, 1 or 0.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    places = np.minimum((p * N_BINS).astype(np.int64), N_BINS - 1)
    bins = tuple(
        CalibrationBin(
            low=place / N_BINS,
            high=(place + 1) / N_BINS,
            n=int(inside.sum()),
            probability=float(p[inside].mean()),
            accuracy=float(y[inside].mean()),
        )
        for place in range(N_BINS)
        if (inside := places == place).any()
    )
    distances = [b.n * abs(b.probability - b.accuracy) for b in bins]
    return Calibration(ece=sum(distances) / len(p), brier=float(np.mean((p - y) ** 2)), bins=bins)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a number of ``positive`` is above one of ``negative``, ties counting half."""
    ordered = np.sort(np.asarray(negative, np.float64))
    under = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(under.mean() / (2 * len(ordered)))
