"""The figures that `ragengine calibrate` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ragengine.cli.console import SafeConsole, line

if TYPE_CHECKING:
    from ragengine.calibration import CalibrationReport, ConfidenceFigures

_NUMBERS = {
    "auroc_right": "AUROC, right against wrong",
    "auroc_answerable": "AUROC of answerability, answerable against not",
    "auroc_answerable_by_confidence": "the same of the confidence",
    "auroc_answerable_by_probability": "the same of p(y|x) alone",
}


def print_report(report: "CalibrationReport", index: Path) -> None:
    """Print the figures, of the cross-validation and of the test questions where there are some."""
    columns = {"cross-validated": report.cross_validated}
    if report.test is not None:
        columns["test"] = report.test
    table = Table(box=None)
    for heading in ("", *columns):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for label, values in _rows(list(columns.values())):
        table.add_row(label, *values)
    console = SafeConsole()
    console.print(table)
    console.print(
        line(
            f"answers with a confidence under {report.model.threshold:.3f} are flagged low_confidence; "
            f"written beside {index}"
        ),
        soft_wrap=True,
    )


def _rows(columns: "list[ConfidenceFigures]") -> list[tuple[str, list[str]]]:
    rows = [
        ("questions", [str(one.n) for one in columns]),
        ("of these unanswerable", [str(one.unanswerable) for one in columns]),
        ("right of all", [_share(one.accuracy) for one in columns]),
    ]
    rows += [(label, [_number(getattr(one, name)) for one in columns]) for name, label in _NUMBERS.items()]
    return [
        *rows,
        ("expected calibration error", [_number(one.reliability.ece) for one in columns]),
        ("Brier score", [_number(one.reliability.brier) for one in columns]),
        ("answered at the threshold", [_share(one.answered) for one in columns]),
        ("wrong of these", [_share(one.error) for one in columns]),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"
