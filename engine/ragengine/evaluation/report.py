"""What an evaluation found: means with intervals, groups, calibration, unanswerable questions."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ragengine.errors import InputError
from ragengine.evaluation.comparison import Difference, compare
from ragengine.evaluation.confidence import ConfidenceFigures, judge
from ragengine.evaluation.definitions import Metrics
from ragengine.evaluation.long_answers import BLEU_ORDERS, bleu
from ragengine.evaluation.measured import Measured, Task, bleu_table, means, value_table
from ragengine.evaluation.metrics import normalize_answer
from ragengine.evaluation.questions import Question
from ragengine.evaluation.statistics import (
    Calibration,
    Resampling,
    auroc,
    bootstrap_intervals,
    calibration,
)

Figures: TypeAlias = dict[str, float | None]
"""Means by the name of the figure; None where no question has it."""

ALWAYS = ("exact_match", "f1", "recall@5")
"""Figures that every evaluation names, with None where no question can be answered."""


@dataclass(frozen=True)
class Group:
    """The questions of one type or kind: how many can be answered, and their figures."""

    n: int
    figures: Figures


@dataclass(frozen=True)
class Unanswerable:
    """What the model did with questions that no document answers.

    n             how many there are
    abstained     the share that it answered with nothing
    probability   the mean probability of its answers
    auroc         the chance that an answerable question's answer is more probable than one of these, ties
                  counting half: 1/2 does not separate the two kinds, 1 separates them wholly; None without
                  answerable questions
    """

    n: int
    abstained: float
    probability: float
    auroc: float | None = None


@dataclass(frozen=True)
class Source:
    """What was evaluated.

    bundle       the folder of the bundle
    index        the folder of the index; None where the engine searches an object of the caller's own
    questions    the file of questions; None where they did not come from one
    options      the generation options that are not the bundle's defaults, by name
    filter       the values that the passages had to have, by field; None where all were searched
    closed_book  whether the generator answered without documents
    """

    bundle: str
    index: str | None
    questions: str | None
    options: dict[str, Any]
    filter: dict[str, list[str]] | None = None
    closed_book: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What was measured on questions with known answers; docs/guides/evaluation.md defines every figure.

    n              how many of the questions can be answered
    figures        the means over those by name, such as ``exact_match``, ``f1`` and ``recall@5``
    intervals      the ends of their bootstrap intervals, for the figures of single questions
    calibration    how the answers' probabilities differ from the rate of right answers; None if not known
    types, kinds   the same figures of each group that the questions name
    unanswerable   what was answered where there is no answer; None if every question has one
    measured       each question with its answer and its own figures, in the order of the file
    task           what the answers are
    resampling     how intervals and tests were drawn
    source         what was evaluated, if it is known
    metrics        whose definitions of the figures of an answer these are
    missing_passages  the passage ids of the questions that the index does not have: no search can find them
    confidence     how good the answers' confidence is; None where the index has no calibration for them
    compared       the other evaluation, after :meth:`compare`
    comparison     the difference between the two by the name of the figure
    """

    n: int
    figures: Figures
    intervals: dict[str, tuple[float, float]]
    calibration: Calibration | None
    types: dict[str, Group]
    kinds: dict[str, Group]
    unanswerable: Unanswerable | None
    measured: tuple[Measured, ...]
    task: Task = "qa"
    resampling: Resampling = dataclasses.field(default_factory=Resampling)
    source: Source | None = None
    compared: "Evaluation | None" = None
    comparison: dict[str, Difference] | None = None
    metrics: Metrics = "squad"
    missing_passages: tuple[str, ...] = ()
    confidence: ConfidenceFigures | None = None

    def compare(self, other: "Evaluation") -> "Evaluation":
        """This evaluation with ``other``, of the same questions, beside it: ``other`` minus this one.

        Raises:
            InputError: the questions or the metrics are not the same.
        """
        if self.metrics != other.metrics:
            raise InputError(
                f"The two evaluations have different metrics, {self.metrics} and {other.metrics}; "
                "evaluate both with the same."
            )
        found = compare(self.measured, other.measured, self.resampling, task=self.task)
        return dataclasses.replace(self, compared=other, comparison=found)

    def to_dict(self) -> dict[str, Any]:
        """What `ragengine eval --json` prints: JSON values, None for NaN and infinite numbers."""
        result: dict[str, Any] = {"n": self.n, **self.figures, "metrics": self.metrics}
        if self.missing_passages:
            result["missing_passages"] = self.missing_passages
        if self.intervals:
            result["intervals"] = self.intervals
            result["bootstrap"] = {"method": "percentile", **dataclasses.asdict(self.resampling)}
        if self.calibration is not None:
            result["calibration"] = self.calibration.to_dict()
        if self.confidence is not None:
            result["confidence"] = self.confidence.to_dict()
        for name, groups in (("types", self.types), ("kinds", self.kinds)):
            if groups:
                result[name] = {group: {"n": one.n, **one.figures} for group, one in groups.items()}
        if self.unanswerable is not None:
            result["unanswerable"] = _without_none(self.unanswerable)
        if self.source is not None:
            result["measured"] = dataclasses.asdict(self.source)
            if not self.source.closed_book:
                del result["measured"]["closed_book"]
        if self.compared is not None:
            result["compared"] = self.compared.to_dict()
        if self.comparison is not None:
            result["comparison"] = {name: _without_none(one) for name, one in self.comparison.items()}
        values: dict[str, Any] = _json_values(result)
        return values


def report(
    measured: Sequence[Measured],
    *,
    task: Task = "qa",
    metrics: Metrics = "squad",
    missing_passages: Sequence[str] = (),
    resampling: Resampling | None = None,
    source: Source | None = None,
) -> Evaluation:
    """Summarise the figures of single questions.

    Args:
        measured: each question with its answer and figures, as :func:`ragengine.evaluation.measure` returns.
        task: what the answers are; ``generation`` adds BLEU.
        metrics: whose definitions the figures of the answers follow.
        missing_passages: the passage ids of the questions that the index does not have.
        resampling: how intervals are drawn, by default 1,000 times.
        source: what was evaluated.
    """
    resampling = resampling or Resampling()
    answerable = [one for one in measured if one.question.answerable]
    unanswerable = [one for one in measured if not one.question.answerable]
    figures = _figures(answerable, task)
    return Evaluation(
        n=len(answerable),
        figures=figures | {name: None for name in ALWAYS if name not in figures},
        intervals=_intervals(answerable, resampling),
        calibration=_calibration(answerable, task),
        types=_groups(answerable, task, lambda question: question.type),
        kinds=_groups(answerable, task, lambda question: question.kind),
        unanswerable=_unanswerable(unanswerable, answerable) if unanswerable else None,
        measured=tuple(measured),
        task=task,
        metrics=metrics,
        missing_passages=tuple(missing_passages),
        confidence=_confidence(measured),
        resampling=resampling,
        source=source,
    )


def _figures(measured: Sequence[Measured], task: Task) -> Figures:
    figures: Figures = {**means([one.values for one in measured])}
    worded = [one for one in measured if one.question.worded]
    if task == "generation" and worded:
        sums = bleu_table(worded).sum(axis=0)
        figures |= {name: bleu(sums, order) for name, order in BLEU_ORDERS.items()}
    return figures


def _intervals(measured: Sequence[Measured], resampling: Resampling) -> dict[str, tuple[float, float]]:
    if not measured or not resampling.resamples:
        return {}
    names = list(means([one.values for one in measured]))
    ends = bootstrap_intervals(value_table(measured, names), resampling).tolist()
    return {name: (low, high) for name, (low, high) in zip(names, ends, strict=True)}


def _calibration(measured: Sequence[Measured], task: Task) -> Calibration | None:
    """Of answers against exact match, of labels against label accuracy, of long answers none."""
    right = "label_accuracy" if task == "classification" else "exact_match"
    judged = [one for one in measured if right in one.values]
    if task == "generation" or not judged:
        return None
    return calibration([one.prediction.probability for one in judged], [one.values[right] for one in judged])


def _confidence(measured: Sequence[Measured]) -> ConfidenceFigures | None:
    """Of answers that all have a confidence; unanswerable questions count as wrong."""
    measured = [one for one in measured if one.question.answers_known]
    said = [one.prediction for one in measured]
    if not said or any(one.confidence is None or one.answerability is None for one in said):
        return None
    return judge(
        np.array([one.confidence for one in said], np.float64),
        np.array([one.answerability for one in said], np.float64),
        np.array([one.probability for one in said], np.float64),
        np.array([one.values.get("exact_match", 0.0) == 1.0 for one in measured]),
        np.array([one.question.answerable for one in measured]),
        low=np.array([one.low for one in said]),
    )


def _groups(
    measured: Sequence[Measured], task: Task, group_of: Callable[[Question], str | None]
) -> dict[str, Group]:
    """The groups that the questions name, in alphabetical order."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        if (group := group_of(one.question)) is not None:
            groups.setdefault(group, []).append(one)
    return {group: Group(len(groups[group]), _figures(groups[group], task)) for group in sorted(groups)}


def _unanswerable(measured: Sequence[Measured], answerable: Sequence[Measured]) -> Unanswerable:
    probabilities = [one.prediction.probability for one in measured]
    return Unanswerable(
        n=len(measured),
        abstained=float(np.mean([not normalize_answer(one.prediction.text) for one in measured])),
        probability=float(np.mean(probabilities)),
        auroc=auroc([one.prediction.probability for one in answerable], probabilities)
        if answerable
        else None,
    )


def _without_none(record: Unanswerable | Difference) -> dict[str, Any]:
    """The fields of a record that have a value."""
    return {name: value for name, value in dataclasses.asdict(record).items() if value is not None}


def _json_values(value: Any) -> Any:
    """``value`` with lists for tuples, and None for NaN and infinite numbers, which are not part of JSON."""
    if isinstance(value, dict):
        return {key: _json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
