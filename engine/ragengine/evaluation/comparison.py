"""Two systems on the same questions: differences, their intervals, and paired tests."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ragengine.errors import InputError
from ragengine.evaluation.long_answers import BLEU_ORDERS, bleu
from ragengine.evaluation.report import bleu_table, json_values, value_table
from ragengine.evaluation.run import Measured, Task, means
from ragengine.evaluation.statistics import (
    DoubleArray,
    Resampling,
    bootstrap_intervals,
    mcnemar,
    paired_bootstrap,
    permutation_test,
)


def compare(
    first: Sequence[Measured],
    second: Sequence[Measured],
    resampling: Resampling | None = None,
    *,
    task: Task = "qa",
) -> dict[str, dict[str, Any]]:
    """For each figure that both have: ``first``, ``second``, ``difference`` (second - first), its
    ``interval`` (paired bootstrap), and ``p`` of ``test``.

    The test is McNemar's exact one for a figure that is 0 or 1 for each question (``only_first`` and
    ``only_second`` are right alone), and a permutation of signs for others; for the BLEU of ``task``
    generation, which no question has by itself, the same bootstrap.  Over the answerable questions that have
    the figure.  Raises :class:`InputError` where the questions are not the same.
    """
    resampling = resampling or Resampling()
    if [one.question for one in first] != [one.question for one in second]:
        raise InputError("Two evaluations of different questions have no paired test; ask both the same.")
    theirs = means([one.values for one in second])
    names = [name for name in means([one.values for one in first]) if name in theirs]
    a, b = value_table(first, names), value_table(second, names)
    tables = {name: _compared(a[:, place], b[:, place], resampling) for place, name in enumerate(names)}
    if task == "generation":
        tables |= _compared_bleu(first, second, resampling)
    result: dict[str, dict[str, Any]] = json_values(
        {name: table for name, table in tables.items() if table is not None}
    )
    return result


def _compared(first: DoubleArray, second: DoubleArray, resampling: Resampling) -> dict[str, Any] | None:
    both = ~(np.isnan(first) | np.isnan(second))
    if not both.any():
        return None
    first, second = first[both], second[both]
    differences = second - first
    table: dict[str, Any] = {
        "n": len(first),
        "first": float(first.mean()),
        "second": float(second.mean()),
        "difference": float(differences.mean()),
    }
    if resampling.resamples:
        table["interval"] = bootstrap_intervals(differences[:, None], resampling)[0].tolist()
    if np.isin([first, second], (0.0, 1.0)).all():
        return table | {
            "test": "mcnemar",
            "only_first": int(np.sum(first > second)),
            "only_second": int(np.sum(first < second)),
            "p": mcnemar(first, second),
        }
    if not resampling.resamples:
        return table
    return table | {"test": "permutation", "p": permutation_test(differences, resampling)}


def _compared_bleu(
    first: Sequence[Measured], second: Sequence[Measured], resampling: Resampling
) -> dict[str, dict[str, Any] | None]:
    """The figures of all answers together; sacrebleu looks at each answer once, whatever is drawn."""
    a, b = ([one for one in measured if one.question.worded] for measured in (first, second))
    if not a:
        return {}
    ours, theirs = bleu_table(a), bleu_table(b)
    tables: dict[str, dict[str, Any] | None] = {}
    for name, order in BLEU_ORDERS.items():
        figure = partial(bleu, order=order)
        said, other = figure(ours.sum(axis=0)), figure(theirs.sum(axis=0))
        table: dict[str, Any] = {"n": len(a), "first": said, "second": other, "difference": other - said}
        if resampling.resamples:
            interval, p = paired_bootstrap(ours, theirs, figure, resampling)
            table |= {"interval": interval, "test": "bootstrap", "p": p}
        tables[name] = table
    return tables
