"""Intervals, paired tests and calibration: numpy alone, every draw from a seed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

DoubleArray: TypeAlias = NDArray[np.float64]
N_BINS = 10


@dataclass(frozen=True)
class Resampling:
    """How intervals and permutation tests draw: ``resamples`` times from ``seed``; 0: not at all."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @property
    def percentiles(self) -> tuple[float, float]:
        """The ends of the interval, in percent."""
        outside = 50 * (1 - self.confidence)
        return outside, 100 - outside


def bootstrap_intervals(values: DoubleArray, resampling: Resampling) -> DoubleArray:
    """Percentile bootstrap intervals of column means: [N, M] -> [M, 2] (Efron 1979).

    Rows (questions) are drawn with replacement.  NaN is a figure that a question has not: a mean is over the
    others.
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
) -> tuple[list[float], float]:
    """The percentile interval and the two-sided p of the difference of a figure of all questions together.

    ``figure`` takes the sums of columns of ``first`` or ``second`` [N, M], whose rows (questions) are drawn
    for both at once.  p is (1 + draws as far from their mean as the difference is from 0) / (1 + draws):
    the draws, shifted to a difference of 0, are the null hypothesis (Riezler and Maxwell 2005).
    """
    observed = figure(second.sum(axis=0)) - figure(first.sum(axis=0))
    drawn = np.array(
        [figure(weights @ second) - figure(weights @ first) for weights in _draws(len(first), resampling)]
    )
    extreme = int(np.sum(np.abs(drawn - drawn.mean()) >= abs(observed) - 1e-9))
    return np.percentile(drawn, resampling.percentiles).tolist(), (1 + extreme) / (1 + len(drawn))


def _draws(count: int, resampling: Resampling) -> Iterator[DoubleArray]:
    """How often each of ``count`` questions is in a sample of as many, drawn with replacement."""
    generator = np.random.default_rng(resampling.seed)
    for _ in range(resampling.resamples):
        drawn = generator.integers(count, size=count)
        yield np.bincount(drawn, minlength=count).astype(np.float64)


def mcnemar(first: DoubleArray, second: DoubleArray) -> float:
    """The exact two-sided p of McNemar's test that two systems are right equally often: [N] of 0 and 1.

    Under the null hypothesis, a question that one alone has right is either's with probability 1/2.
    """
    only_first, only_second = int(np.sum(first > second)), int(np.sum(first < second))
    discordant = only_first + only_second
    tail = term = 1  # binomial coefficients, in whole numbers
    for k in range(min(only_first, only_second)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**discordant))


def permutation_test(differences: DoubleArray, resampling: Resampling) -> float:
    """The two-sided p that paired differences [N] have mean 0, by random changes of their signs.

    Fisher's randomisation test; (1 + as extreme draws) / (1 + draws), so it is never 0.
    """
    generator = np.random.default_rng(resampling.seed)
    observed, extreme = abs(differences.sum()), 0
    for _ in range(resampling.resamples):
        signs = generator.integers(2, size=len(differences)) * 2 - 1
        extreme += abs(signs @ differences) >= observed - 1e-9
    return (1 + extreme) / (1 + resampling.resamples)


def calibration(probabilities: Sequence[float], right: Sequence[float]) -> dict[str, Any]:
    """How far probabilities of answers are the rate at which those answers are right.

    ``ece``, the expected calibration error over 10 bins of equal width (Guo et al. 2017): the mean distance
    of a bin's mean probability from its accuracy, bins weighing what they hold.  ``brier``, the mean squared
    difference (Brier 1950).  ``bins`` has those that hold anything.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    places = np.minimum((p * N_BINS).astype(np.int64), N_BINS - 1)
    bins = [
        {
            "from": place / N_BINS,
            "to": (place + 1) / N_BINS,
            "n": int(inside.sum()),
            "probability": float(p[inside].mean()),
            "accuracy": float(y[inside].mean()),
        }
        for place in range(N_BINS)
        if (inside := places == place).any()
    ]
    distances = [b["n"] * abs(b["probability"] - b["accuracy"]) for b in bins]
    return {"ece": sum(distances) / len(p), "brier": float(np.mean((p - y) ** 2)), "bins": bins}


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a number of ``positive`` is over one of ``negative``, ties counting half."""
    ordered = np.sort(np.asarray(negative, np.float64))
    under = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(under.mean() / (2 * len(ordered)))
