"""Two systems on the same questions: differences, their intervals, and paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.errors import InputError
from ragengine.evaluation.long_answers import BLEU_ORDERS, bleu
from ragengine.evaluation.measured import Measured, Task, bleu_table, means, value_table
from ragengine.evaluation.statistics import (
    Resampling,
    bootstrap_intervals,
    mcnemar,
    paired_bootstrap,
    permutation_test,
)


@dataclass(frozen=True)
class Difference:
    """A figure of two systems, over the answerable questions for which both have it.

    n             how many questions these are
    first         the figure of the first system
    second        the figure of the second system
    difference    second - first
    interval      the ends of its paired bootstrap interval
    test          the paired test: McNemar's exact one for figures that are 0 or 1 for each question,
                  permutation of signs for other figures of a question, the bootstrap for figures of all
                  questions together (BLEU)
    only_first    questions that the first system alone has right (McNemar)
    only_second   questions that the second system alone has right (McNemar)
    p             the two-sided p-value of the test

    Without resampling there is no interval, and of the tests only McNemar's.
    """

    n: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None = None
    test: Literal["mcnemar", "permutation", "bootstrap"] | None = None
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None


def compare(
    first: Sequence[Measured],
    second: Sequence[Measured],
    resampling: Resampling | None = None,
    *,
    task: Task = "qa",
) -> dict[str, Difference]:
    """Compare two systems figure by figure.

    Args:
        first: the questions with the answers and figures of the first system.
        second: the same questions, with those of the second.
        resampling: how intervals and tests are drawn, by default 1,000 times.
        task: what the answers are; ``generation`` adds BLEU.

    Returns:
        The difference of each figure that both systems have, by name.

    Raises:
        InputError: the questions are not the same.
    """
    resampling = resampling or Resampling()
    if [one.question for one in first] != [one.question for one in second]:
        raise InputError(
            "The two evaluations are of different questions, for which there is no paired test; evaluate "
            "both on the same questions."
        )
    theirs = means([one.values for one in second])
    names = [name for name in means([one.values for one in first]) if name in theirs]
    a, b = value_table(first, names), value_table(second, names)
    found = {name: _difference(a[:, place], b[:, place], resampling) for place, name in enumerate(names)}
    if task == "generation":
        found |= _bleu_differences(first, second, resampling)
    return {name: difference for name, difference in found.items() if difference is not None}


def _difference(first: DoubleArray, second: DoubleArray, resampling: Resampling) -> Difference | None:
    """The difference of a figure [N] of single questions, NaN where a question does not have it."""
    both = ~(np.isnan(first) | np.isnan(second))
    if not both.any():
        return None
    first, second = first[both], second[both]
    differences = second - first
    difference = partial(
        Difference, len(first), float(first.mean()), float(second.mean()), float(differences.mean())
    )
    interval = None
    if resampling.resamples:
        low, high = bootstrap_intervals(differences[:, None], resampling)[0].tolist()
        interval = low, high
    if np.isin([first, second], (0.0, 1.0)).all():
        return difference(
            interval=interval,
            test="mcnemar",
            only_first=int(np.sum(first > second)),
            only_second=int(np.sum(first < second)),
            p=mcnemar(first, second),
        )
    if not resampling.resamples:
        return difference()
    return difference(interval=interval, test="permutation", p=permutation_test(differences, resampling))


def _bleu_differences(
    first: Sequence[Measured], second: Sequence[Measured], resampling: Resampling
) -> dict[str, Difference | None]:
    """The figures of all answers together; sacrebleu counts each answer once, however often it is drawn."""
    a, b = ([one for one in measured if one.question.worded] for measured in (first, second))
    if not a:
        return {}
    ours, theirs = bleu_table(a), bleu_table(b)
    found: dict[str, Difference | None] = {}
    for name, order in BLEU_ORDERS.items():
        figure = partial(bleu, order=order)
        one, other = figure(ours.sum(axis=0)), figure(theirs.sum(axis=0))
        difference = partial(Difference, len(a), one, other, other - one)
        if resampling.resamples:
            interval, p = paired_bootstrap(ours, theirs, figure, resampling)
            found[name] = difference(interval=interval, test="bootstrap", p=p)
        else:
            found[name] = difference()
    return found
