"""The tables that `ragengine eval` prints."""

import math
from shlex import quote
from typing import TYPE_CHECKING

from rich.table import Table

from ragengine.cli.console import SafeConsole, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragengine.evaluation.comparison import Difference
    from ragengine.evaluation.confidence import ConfidenceFigures
    from ragengine.evaluation.measured import Measured
    from ragengine.evaluation.report import Evaluation, Group, Unanswerable

_IN_NATS = ("log_likelihood",)  # the other figures are fractions
_WIDTH_OF_FILES = 140
_NAMED = 10  # of the passages that the index does not have
_OF_GROUPS = ("exact_match", "f1", "rouge_l", "bleu", "label_accuracy", "recall@5", "passage_recall@5")

_OF_CHECKPOINTS = (*_OF_GROUPS, "title_precision@1", "title_precision@5")


def print_evaluation(found: "Evaluation", *, wrong: int = 0) -> None:
    """Print the tables of an evaluation, with the comparison where there is one, and some wrong answers."""
    console = SafeConsole()
    if not console.is_terminal:
        console = SafeConsole(width=_WIDTH_OF_FILES)
    console.print(_figures(found))
    for name, groups in (("type", found.types), ("kind", found.kinds)):
        if groups:
            console.print(_groups(name, groups))
    if missing := found.missing_passages:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        console.print(line(f"{len(missing)} passage ids of the questions are not in the index: {named}"))
    if found.calibration is not None:
        error, brier = found.calibration.ece, found.calibration.brier
        console.print(f"calibration error {_shown('ece', error)}, Brier score {brier:.4f}")
    if found.confidence is not None:
        console.print(_confidence(found.confidence))
    if found.unanswerable is not None:
        console.print(_unanswerable(found.unanswerable))
    if found.comparison is not None:
        console.print(_comparison(found.comparison))
    _print_wrong(console, found.measured, wrong)


def print_checkpoints(found: "Sequence[Evaluation]") -> None:
    """Print one table of several bundles, and which of them has the best exact match."""
    console = SafeConsole()
    if not console.is_terminal:
        console = SafeConsole(width=_WIDTH_OF_FILES)
    names = [name for name in _OF_CHECKPOINTS if any(one.figures.get(name) is not None for one in found)]
    table = _table("checkpoint", "n", *names)
    bundles = ["" if one.source is None else one.source.bundle for one in found]
    for bundle, one in zip(bundles, found, strict=True):
        table.add_row(line(bundle), str(one.n), *(_shown(name, one.figures.get(name)) for name in names))
    console.print(table)
    if missing := {name for one in found for name in one.missing_passages}:
        console.print(f"{len(missing)} passage ids of the questions are not in an index")
    best = best_checkpoint(found).source
    if best is not None and best.index is not None:
        console.print(line(f"best exact match: {best.bundle}"), soft_wrap=True)
        served = " ".join(map(quote, (best.bundle, best.index)))
        console.print(line(f"serve it: ragengine serve {served}"), soft_wrap=True)


def best_checkpoint(found: "Sequence[Evaluation]") -> "Evaluation":
    """The first of those with the best exact match."""
    return max(found, key=lambda one: one.figures.get("exact_match") or 0.0)


def _figures(found: "Evaluation") -> Table:
    table = _table("measure", "value", "95 % interval")
    table.add_row("n", str(found.n))
    for name, value in found.figures.items():
        table.add_row(name, _shown(name, value), _interval(name, found.intervals.get(name)))
    return table


def _groups(title: str, groups: "dict[str, Group]") -> Table:
    names = [name for name in _OF_GROUPS if any(name in group.figures for group in groups.values())]
    table = _table(title, "n", *names)
    for name, group in groups.items():
        table.add_row(
            line(name), str(group.n), *(_shown(figure, group.figures.get(figure)) for figure in names)
        )
    return table


def _unanswerable(found: "Unanswerable") -> str:
    auroc = "" if found.auroc is None else f"; AUROC of the answers' probability {found.auroc:.3f}"
    return (
        f"{found.n} questions without an answer, in none of the figures above: "
        f"{_shown('', found.abstained)} answered with nothing, "
        f"mean probability {_shown('', found.probability)}{auroc}"
    )


def _confidence(found: "ConfidenceFigures") -> str:
    auroc = "" if found.auroc_right is None else f"; AUROC of right against wrong {found.auroc_right:.3f}"
    return (
        f"confidence of all {found.n} questions: {_shown('', found.answered)} are not low_confidence, "
        f"of which {_shown('', found.error)} are wrong{auroc}, "
        f"calibration error {_shown('', found.reliability.ece)}"
    )


def _print_wrong(console: SafeConsole, measured: "Sequence[Measured]", most: int) -> None:
    """Print the first wrong answers of answerable questions beside what was expected."""
    missed = [one for one in measured if one.values.get("exact_match") == 0.0]
    if not missed or not most:
        return
    console.print(f"wrong answers, {min(most, len(missed))} of {len(missed)}:")
    for one in missed[:most]:
        console.print(line(f"  {one.question.question}", "bold"), soft_wrap=True)
        said = one.prediction.text.strip() or "(no text)"
        console.print(line(f"    {said}   expected: {' or '.join(one.question.answers)}"), soft_wrap=True)


def _comparison(differences: "dict[str, Difference]") -> Table:
    table = _table("compared", "first", "second", "change", "95 % interval", "p", "test")
    for name, row in differences.items():
        values = [_shown(name, value) for value in (row.first, row.second, row.difference)]
        p = "" if row.p is None else f"{row.p:.4f}"
        table.add_row(name, *values, _interval(name, row.interval), p, row.test or "")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _interval(name: str, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return ""
    low, high = (_shown(name, end) for end in ends)
    return f"{low.removesuffix(' %')} – {high}"


def _shown(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if name in _IN_NATS else f"{value * 100:.1f} %"
