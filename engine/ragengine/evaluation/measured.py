"""What an engine answered to a question, and the figures of that answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.evaluation.long_answers import bleu_statistics
from ragengine.evaluation.questions import Question
from ragengine.results import Document

Task: TypeAlias = Literal["qa", "generation", "classification"]


@dataclass(frozen=True)
class Prediction:
    """What an engine answered.

    text          the answer, or the most probable label
    probability   p(y | x) of the answer; of a label, among the labels
    documents     the documents read, best first
    raw_text      the answer as decoded, with the space that it may begin with
    confidence    the probability that the answer is right, by the index's calibration
    answerability  the probability that the documents hold an answer, by the same
    low           whether the confidence is under the calibration's threshold
    """

    text: str
    probability: float
    documents: tuple[Document, ...]
    raw_text: str = ""
    confidence: float | None = None
    answerability: float | None = None
    low: bool = False


def probability(log_prob: float) -> float:
    """p of log p; rounding can leave a log-probability over 0."""
    return float(np.exp(min(log_prob, 0.0)))


@dataclass(frozen=True)
class Measured:
    """A question, what the engine answered, and the figures of the answer by name; none if unanswerable."""

    question: Question
    prediction: Prediction
    values: dict[str, float]


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the questions that have it, in the order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def value_table(measured: Sequence[Measured], names: Sequence[str]) -> DoubleArray:
    """The named figures of each question, float64 [N, M], NaN where it has none."""
    return np.array([[one.values.get(name, np.nan) for name in names] for one in measured], np.float64)


def bleu_table(measured: Sequence[Measured]) -> DoubleArray:
    """The counts that BLEU sums, [N, 10] (:func:`bleu_statistics`), of questions that are ``worded``."""
    answers = [one.prediction.text.strip() for one in measured]
    return bleu_statistics(answers, [one.question.answers for one in measured])
