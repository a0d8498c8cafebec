"""The tables of an evaluation: means with intervals, groups, calibration, unanswerable questions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragengine.evaluation.long_answers import BLEU_ORDERS, bleu, bleu_statistics
from ragengine.evaluation.metrics import normalize_answer
from ragengine.evaluation.questions import Question
from ragengine.evaluation.run import Measured, Task, means
from ragengine.evaluation.statistics import DoubleArray, Resampling, auroc, bootstrap_intervals, calibration

ALWAYS = ("exact_match", "f1", "recall@5")  # keys of `eval --json`, null where nothing can be answered


def report(
    measured: Sequence[Measured], *, task: Task = "qa", resampling: Resampling | None = None
) -> dict[str, Any]:
    """All figures as JSON values.

    ``n`` answerable questions and the mean of each figure over those that have it; ``intervals`` (percentile
    bootstrap over questions, described in ``bootstrap``); ``calibration`` of the answers' probabilities
    against exact match (of labels: label accuracy); ``types`` and ``kinds``, the same means by the question's
    group; ``unanswerable``, apart from all of these.  A figure that there is not is None.
    """
    resampling = resampling or Resampling()
    answerable = [one for one in measured if one.question.answerable]
    result: dict[str, Any] = {"n": len(answerable)} | _figures(answerable, task)
    result |= dict.fromkeys(name for name in ALWAYS if name not in result)
    if answerable and resampling.resamples:
        names = list(means([one.values for one in answerable]))
        ends = bootstrap_intervals(value_table(answerable, names), resampling)
        result["intervals"] = dict(zip(names, ends.tolist(), strict=True))
        result["bootstrap"] = {
            "method": "percentile",
            "resamples": resampling.resamples,
            "confidence": resampling.confidence,
            "seed": resampling.seed,
        }
    if answerable and task != "generation":
        right = "label_accuracy" if task == "classification" else "exact_match"
        judged = [one for one in answerable if right in one.values]
        if judged:
            result["calibration"] = calibration(
                [one.prediction.probability for one in judged], [one.values[right] for one in judged]
            )
    result |= _groups(answerable, task)
    unanswerable = [one for one in measured if not one.question.answerable]
    if unanswerable:
        result["unanswerable"] = _unanswerable(unanswerable, answerable)
    values: dict[str, Any] = json_values(result)
    return values


def value_table(measured: Sequence[Measured], names: Sequence[str]) -> DoubleArray:
    """The named figures of each question, float64 [N, M], NaN where it has none."""
    return np.array([[one.values.get(name, np.nan) for name in names] for one in measured], np.float64)


def bleu_table(measured: Sequence[Measured]) -> DoubleArray:
    """What BLEU adds up, [N, 10] (`bleu_statistics`), of questions whose answers are `Question.worded`."""
    answers = [one.prediction.text.strip() for one in measured]
    return bleu_statistics(answers, [one.question.answers for one in measured])


def json_values(value: Any) -> Any:
    """``value`` with None for the numbers that JSON has not: NaN and the infinite ones."""
    if isinstance(value, dict):
        return {key: json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(measured: Sequence[Measured], task: Task) -> dict[str, float]:
    figures = means([one.values for one in measured])
    worded = [one for one in measured if one.question.worded]
    if task == "generation" and worded:
        sums = bleu_table(worded).sum(axis=0)
        figures |= {name: bleu(sums, order) for name, order in BLEU_ORDERS.items()}
    return figures


def _groups(measured: Sequence[Measured], task: Task) -> dict[str, Any]:
    """``types`` and ``kinds``, those of them that the questions have."""
    by: dict[str, Callable[[Question], str | None]] = {"types": lambda q: q.type, "kinds": lambda q: q.kind}
    tables: dict[str, Any] = {}
    for table, group_of in by.items():
        groups: dict[str, list[Measured]] = {}
        for one in measured:
            if (group := group_of(one.question)) is not None:
                groups.setdefault(group, []).append(one)
        if groups:
            tables[table] = {
                group: {"n": len(groups[group])} | _figures(groups[group], task) for group in sorted(groups)
            }
    return tables


def _unanswerable(measured: Sequence[Measured], answerable: Sequence[Measured]) -> dict[str, Any]:
    """What the model did where no document answers.

    ``abstained``: answered nothing; ``probability``: of its answers, in the mean.  ``auroc``: the chance that
    a question with an answer has the more probable one of two; 1/2 tells the two sorts not apart.
    """
    probabilities = [one.prediction.probability for one in measured]
    result = {
        "n": len(measured),
        "abstained": float(np.mean([not normalize_answer(one.prediction.text) for one in measured])),
        "probability": float(np.mean(probabilities)),
    }
    if answerable:
        result["auroc"] = auroc([one.prediction.probability for one in answerable], probabilities)
    return result
