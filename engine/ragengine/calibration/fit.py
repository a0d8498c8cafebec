"""Logistic models of whether documents hold an answer and whether it is right, by cross-validation."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import DoubleArray
from ragengine.calibration.observations import Observations
from ragengine.calibration.patterns import question_patterns
from ragengine.confidence.features import FEATURES
from ragengine.confidence.model import FARTHEST, Logistic
from ragengine.confidence.rarity import Rarity
from ragengine.installation import check_packages

FOLDS = 5
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""The inverse strengths C of regularisation that are tried."""
_CERTAIN = 30.0  # the logit of "every question is answerable", where no other was given


@dataclass(frozen=True, eq=False)
class Fitted:
    """Two logistic models over standardised features, with the weights of words that the features need."""

    means: DoubleArray
    scales: DoubleArray
    answerable: Logistic
    right: Logistic
    rarity: Rarity

    def probabilities(self, values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """(confidence, answerability) of features [Q, F]: [Q] each."""
        standard = _standard(values, self.means, self.scales)
        answerability = self.answerable.probability(standard)
        return answerability * self.right.probability(standard), answerability


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """What models say of answers that they were not fitted to.

    strength       the C that did best
    confidence     float64 [Q]
    answerability  float64 [Q]
    """

    strength: float
    confidence: DoubleArray
    answerability: DoubleArray


def check_installed() -> None:
    """Raise :class:`DependencyError` where the library of the fit is missing."""
    check_packages("A calibration needs", ("sklearn",), "calibrate")


def fit(observed: Observations, words: tuple[Counter[str], int], strength: float) -> Fitted:
    """Fit both models to all answers.

    Args:
        observed: the answers.
        words: in how many passages each word is, and of how many.
        strength: C, the inverse strength of regularisation.
    """
    rarity = Rarity.of(observed.questions, *words)
    return _fit(observed.features(rarity), observed.right, observed.answerable, rarity, strength)


def cross_validate(observed: Observations, words: tuple[Counter[str], int]) -> CrossValidated:
    """Judge every answer by models that know no question of its pattern, for the best of :data:`STRENGTHS`.

    The best has the least log loss of the confidence.
    """
    folds = list(_folds(observed, words))
    best: tuple[float, CrossValidated] | None = None
    for strength in STRENGTHS:
        confidence, answerability = np.empty(len(observed.right)), np.empty(len(observed.right))
        for fold in folds:
            part = fold.train
            model = _fit(fold.known, observed.right[part], observed.answerable[part], fold.rarity, strength)
            confidence[fold.test], answerability[fold.test] = model.probabilities(fold.unknown)
        loss = _log_loss(confidence, observed.right)
        if best is None or loss < best[0]:
            best = loss, CrossValidated(strength, confidence, answerability)
    assert best is not None
    return best[1]


@dataclass(frozen=True, eq=False)
class _Fold:
    """The answers to fit to and to judge, with the features that only the former's questions weigh."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    rarity: Rarity
    known: DoubleArray
    unknown: DoubleArray


def _folds(observed: Observations, words: tuple[Counter[str], int]) -> Iterator[_Fold]:
    from sklearn.model_selection import StratifiedGroupKFold

    # Each fold gets right, wrong and unanswerable questions in about equal shares.
    kinds = observed.right.astype(int) + 2 * ~observed.answerable
    groups = question_patterns(observed.questions)
    splits = min(FOLDS, len(np.unique(groups)))
    folds = StratifiedGroupKFold(splits, shuffle=True, random_state=0)
    for train, test in folds.split(kinds, kinds, groups):
        questions = observed.questions
        rarity = Rarity.of([questions[row] for row in train], *words)
        values = observed.features(rarity)
        yield _Fold(train, test, rarity, values[train], values[test])


def _fit(
    values: DoubleArray,
    right: NDArray[np.bool_],
    answerable: NDArray[np.bool_],
    rarity: Rarity,
    strength: float,
) -> Fitted:
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    standard = _standard(values, means, scales)
    return Fitted(
        means,
        scales,
        _logistic(standard, answerable, strength),
        _logistic(standard[answerable], right[answerable], strength),
        rarity,
    )


def _standard(values: DoubleArray, means: DoubleArray, scales: DoubleArray) -> DoubleArray:
    return np.clip((values - means) / scales, -FARTHEST, FARTHEST)


def _logistic(values: DoubleArray, positive: NDArray[np.bool_], strength: float) -> Logistic:
    from sklearn.linear_model import LogisticRegression

    if positive.all() or not positive.any():  # nothing to tell apart
        sign = 1.0 if positive.all() else -1.0
        return Logistic(sign * _CERTAIN, [0.0] * len(FEATURES))
    fitted: Any = LogisticRegression(C=strength, max_iter=5000).fit(values, positive)
    return Logistic(float(fitted.intercept_[0]), [float(weight) for weight in fitted.coef_[0]])


def _log_loss(probabilities: DoubleArray, right: NDArray[np.bool_]) -> float:
    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return float(-np.mean(np.where(right, np.log(p), np.log(1 - p))))
