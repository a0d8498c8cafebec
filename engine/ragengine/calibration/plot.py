"""The reliability curve and the risk-coverage curve of a confidence."""

from pathlib import Path
from typing import TYPE_CHECKING

from ragengine.evaluation.confidence import ConfidenceFigures
from ragengine.plot import check_drawable, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREY, _RED = "#2f78b7", "#7b8794", "#c0392b"


def draw(figures: ConfidenceFigures, path: Path, title: str) -> None:
    """Write both curves as PNG or SVG, by the path's suffix.

    Raises:
        InputError: another suffix, or the path cannot be written.
        DependencyError: matplotlib is not installed.
    """
    check_drawable(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    reliability, risk = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=10)
    _reliability(reliability, figures)
    _risk(risk, figures)
    write_figure(figure, path)


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
