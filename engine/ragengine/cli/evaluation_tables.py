"""The tables that `ragengine eval` prints."""

from typing import Any

from rich.console import Console
from rich.table import Table

_IN_NATS = ("log_likelihood",)  # the other figures are fractions
_WIDTH_OF_FILES = 140
_OF_GROUPS = ("exact_match", "f1", "rouge_l", "bleu", "label_accuracy", "recall@5", "passage_recall@5")


def print_report(result: dict[str, Any]) -> None:
    """Print what `ragengine.evaluation.report` found, with the comparison where there is one."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_FILES)
    console.print(_figures(result))
    for name in ("types", "kinds"):
        if name in result:
            console.print(_groups(name.removesuffix("s"), result[name]))
    if "calibration" in result:
        calibration = result["calibration"]
        console.print(
            f"calibration error {_shown('ece', calibration['ece'])}, Brier score {calibration['brier']:.4f}"
        )
    if "unanswerable" in result:
        console.print(_unanswerable(result["unanswerable"]))
    if "comparison" in result:
        console.print(_comparison(result["comparison"]))


def _figures(result: dict[str, Any]) -> Table:
    table = _table("measure", "value", "95 % interval")
    intervals = result.get("intervals", {})
    table.add_row("n", str(result["n"]))
    for name, value in result.items():
        if name != "n" and (value is None or isinstance(value, float)):
            table.add_row(name, _shown(name, value), _interval(name, intervals.get(name)))
    return table


def _groups(title: str, groups: dict[str, dict[str, Any]]) -> Table:
    names = [name for name in _OF_GROUPS if any(name in group for group in groups.values())]
    table = _table(title, "n", *names)
    for group, figures in groups.items():
        table.add_row(group, str(figures["n"]), *(_shown(name, figures.get(name)) for name in names))
    return table


def _unanswerable(figures: dict[str, Any]) -> str:
    told = f"; AUROC of the answers' probability {figures['auroc']:.3f}" if "auroc" in figures else ""
    return (
        f"{figures['n']} questions without an answer, in none of the figures above: "
        f"{_shown('', figures['abstained'])} answered with nothing, "
        f"mean probability {_shown('', figures['probability'])}{told}"
    )


def _comparison(figures: dict[str, dict[str, Any]]) -> Table:
    table = _table("compared", "first", "second", "change", "95 % interval", "p", "test")
    for name, row in figures.items():
        values = [_shown(name, row[key]) for key in ("first", "second", "difference")]
        p = f"{row['p']:.4f}" if "p" in row else ""
        table.add_row(name, *values, _interval(name, row.get("interval")), p, row.get("test", ""))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _interval(name: str, ends: list[float | None] | None) -> str:
    if ends is None:
        return ""
    low, high = (_shown(name, end) for end in ends)
    return f"{low.removesuffix(' %')} – {high}"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if name in _IN_NATS else f"{value * 100:.1f} %"
