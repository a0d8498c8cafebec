"""How good a confidence is: reliability, AUROC, and how many answers are wrong at each share answered."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import DoubleArray
from ragengine.evaluation.statistics import Calibration, auroc, calibration

_POINTS = 100  # of the risk-coverage curve
_SAMPLES = 2000  # of groups
CERTAINTY = 0.05
"""How likely it may be that a threshold's error is in truth above the rate that was asked for."""


@dataclass(frozen=True)
class ConfidenceFigures:
    """A confidence, judged on questions with known answers; the unanswerable ones count as wrong.

    n                     questions
    unanswerable          those that no document answers
    accuracy              share of all questions that are answered right
    auroc_right           the chance that a right answer has more confidence than a wrong one
    auroc_answerable      the chance that an answerable question has more answerability than another; None
                          without unanswerable questions, as the next two
    auroc_answerable_by_confidence   the same by the confidence
    auroc_answerable_by_probability  the same by the answer's probability alone
    reliability           expected calibration error, Brier score and the reliability curve
    threshold             the confidence from which on a question is answered; None where it is not known
    answered              share of the questions that are
    error                 share of wrong answers among those; None where none is answered
    risk_coverage         (share answered, share wrong of those) by falling confidence
    """

    n: int
    unanswerable: int
    accuracy: float
    auroc_right: float | None
    auroc_answerable: float | None
    auroc_answerable_by_confidence: float | None
    auroc_answerable_by_probability: float | None
    reliability: Calibration
    threshold: float | None
    answered: float
    error: float | None
    risk_coverage: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        curve = [list(point) for point in self.risk_coverage]
        return {**asdict(self), "reliability": self.reliability.to_dict(), "risk_coverage": curve}

    def summary(self) -> dict[str, Any]:
        """The figures that are single numbers."""
        values = self.to_dict()
        reliability = values.pop("reliability")
        del values["risk_coverage"]
        return {**values, "ece": reliability["ece"], "brier": reliability["brier"]}


def judge(
    confidence: DoubleArray,
    answerability: DoubleArray,
    log_probs: DoubleArray,
    right: NDArray[np.bool_],
    answerable: NDArray[np.bool_],
    threshold: float | None = None,
    low: NDArray[np.bool_] | None = None,
) -> ConfidenceFigures:
    """The figures of Q answers; every argument but the threshold is [Q].

    Those with a confidence of ``threshold`` are answered; without one, those that are not ``low``.
    """
    answered = confidence >= threshold if threshold is not None else ~np.asarray(low)
    return ConfidenceFigures(
        n=len(right),
        unanswerable=int(np.sum(~answerable)),
        accuracy=float(right.mean()),
        auroc_right=_auroc(confidence, right),
        auroc_answerable=_auroc(answerability, answerable),
        auroc_answerable_by_confidence=_auroc(confidence, answerable),
        auroc_answerable_by_probability=_auroc(log_probs, answerable),
        reliability=calibration(confidence.tolist(), right.astype(float).tolist()),
        threshold=threshold,
        answered=float(answered.mean()),
        error=float(1 - right[answered].mean()) if answered.any() else None,
        risk_coverage=risk_coverage(confidence, right),
    )


def risk_coverage(confidence: DoubleArray, right: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """How many answers are wrong where only the most confident are given.

    El-Yaniv and Wiener (2010), On the foundations of noise-free selective classification.

    Args:
        confidence: of each answer, float64 [N].
        right: whether it is right, bool [N].

    Returns:
        Points (share of the questions answered, share of these that are wrong), at most :data:`_POINTS`.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    counts = np.unique(np.linspace(1, len(right), min(_POINTS, len(right))).astype(int))
    return tuple((int(n) / len(right), float(wrong[n - 1] / n)) for n in counts)


def choose_threshold(
    confidence: DoubleArray,
    right: NDArray[np.bool_],
    error_rate: float,
    groups: NDArray[np.int64] | None = None,
) -> float | None:
    """The least confidence from which on fewer answers than ``error_rate`` are wrong, and not by luck.

    Two bounds must hold with a certainty of 95 %.  Of n answers, of which k are wrong: P(at most k of n are
    wrong) <= 0.05 if each were with probability ``error_rate``, the binomial bound of selective
    classification (Geifman and El-Yaniv 2017).  It takes answers as independent, and those to questions of
    one pattern are not: where there are ``groups``, the error must also be below the rate in 95 % of samples
    of as many groups, drawn with replacement (Davison and Hinkley 1997, section 3.8).

    Args:
        confidence: of the answers, float64 [Q].
        right: which of them are right, bool [Q].
        error_rate: the share of wrong answers that is allowed.
        groups: the group of each question, [Q].

    Returns:
        The threshold; None where no threshold holds.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, wrong = confidence[order], np.cumsum(~right[order])
    last = np.append(ordered[1:] < ordered[:-1], True)  # equal confidences are answered together
    for place in np.flatnonzero(last)[::-1]:
        threshold = float(ordered[place])
        if _binomial_cdf(int(wrong[place]), int(place) + 1, error_rate) <= CERTAINTY and (
            groups is None or _holds_for_groups(confidence >= threshold, right, error_rate, groups)
        ):
            return threshold
    return None


def _holds_for_groups(
    answered: NDArray[np.bool_], right: NDArray[np.bool_], error_rate: float, groups: NDArray[np.int64]
) -> bool:
    """Whether the error of answers is below the rate in all but 5 % of samples of their groups."""
    _, places = np.unique(groups, return_inverse=True)
    counts = np.bincount(places, answered)
    wrong = np.bincount(places, answered & ~right)
    drawn = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _SAMPLES)
    return bool(np.mean(drawn @ wrong >= error_rate * (drawn @ counts)) <= CERTAINTY)


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial distribution."""
    if k >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    choose = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    return math.fsum(math.exp(c + i * math.log(p) + (n - i) * math.log1p(-p)) for i, c in enumerate(choose))


def _auroc(values: DoubleArray, positive: NDArray[np.bool_]) -> float | None:
    if positive.all() or not positive.any():
        return None
    return auroc(values[positive].tolist(), values[~positive].tolist())
