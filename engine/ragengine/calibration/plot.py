"""The reliability curve and the risk-coverage curve of a confidence."""

from pathlib import Path
from typing import TYPE_CHECKING

from ragengine.errors import DependencyError, InputError
from ragengine.evaluation.confidence import ConfidenceFigures
from ragengine.storage.atomic import output_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")
_BLUE, _GREY, _RED = "#2f78b7", "#7b8794", "#c0392b"


def check_plot(path: Path) -> None:
    """Refuse, before hours of answering, a plot that could not be drawn.

    Raises:
        InputError: ``path`` is named neither .png nor .svg.
        DependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path} has the suffix {path.suffix!r}; a plot is written as .png or .svg.")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as reason:
        raise DependencyError(
            f"Plots need the package {reason.name}, which is not installed; "
            'run pip install "ragengine[plot]".'
        ) from reason


def draw(figures: ConfidenceFigures, path: Path, title: str) -> None:
    """Write both curves as PNG or SVG, by the path's suffix.

    Raises:
        InputError: another suffix, or the path cannot be written.
        DependencyError: matplotlib is not installed.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    reliability, risk = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=10)
    _reliability(reliability, figures)
    _risk(risk, figures)
    _write(figure, path)


def _reliability(axes: "Axes", figures: ConfidenceFigures) -> None:
    bins = figures.reliability.bins
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="perfect")
    axes.plot(
        [one.probability for one in bins],
        [one.accuracy for one in bins],
        color=_BLUE,
        marker="o",
        label=f"measured, ECE {figures.reliability.ece:.3f}",
    )
    for one in bins:
        axes.annotate(
            str(one.n), (one.probability, one.accuracy), (4, -10), textcoords="offset points", size=7
        )
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1), title="Reliability")
    axes.legend(loc="upper left", fontsize=8)


def _risk(axes: "Axes", figures: ConfidenceFigures) -> None:
    coverage, risk = zip(*figures.risk_coverage, strict=True)
    axes.plot(coverage, risk, color=_BLUE)
    if figures.error is not None:
        axes.plot([figures.answered], [figures.error], color=_RED, marker="o")
        axes.annotate(
            f"{_limit(figures)}{figures.answered:.0%} answered, {figures.error:.1%} wrong",
            (figures.answered, figures.error),
            (-8, 12),
            textcoords="offset points",
            size=8,
            ha="right",
        )
    axes.set(xlabel="share answered", ylabel="share wrong of these", xlim=(0, 1), title="Risk and coverage")
    axes.set_ylim(bottom=0)


def _limit(figures: ConfidenceFigures) -> str:
    return "" if figures.threshold is None else f"threshold {figures.threshold:.2f}: "


def _write(figure: "Figure", path: Path) -> None:
    kind = path.suffix.lower()[1:]
    with output_file(path) as file:
        figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
