"""Plots of a report, each as PNG and SVG: stages beside their rooflines, ratios, sweeps."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ragengine.storage.atomic import output_file
from ragengine_bench.harness.report import Report, Row, Section, percentile
from ragengine_bench.harness.tables import time

OURS, ROOFLINE, INK, FAINT = "#2f78b7", "#e9b44c", "#1f2933", "#7b8794"
COLOURS = (OURS, "#084594", "#74aad8", "#3a9d78")
_BAR = 0.38
_VISIBLE = 0.005  # stages under this share of the whole are left out of the figure (they are in the table)


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Write what there are samples for; the SVG files, in the order of the report."""
    written: list[Path] = []
    for number, section in enumerate(report.sections, start=1):
        for name, figure in _figures(section):
            for kind in ("png", "svg"):
                path = folder / f"{number}-{name}.{kind}"
                # no date: the same report gives the same file
                with output_file(path, parents=True) as file:
                    metadata = {"Date": None} if kind == "svg" else None
                    figure.savefig(file, format=kind, dpi=150, metadata=metadata)
            written.append(folder / f"{number}-{name}.svg")
    return written


def _figures(section: Section) -> Iterator[tuple[str, Figure]]:
    ours = [row for row in section.measured if row.ours]
    if section.kind == "sweep":
        if ours:
            yield section.axis, _sweep(section, ours)
        return
    staged = [row for row in ours if row.stages]
    if staged:
        yield f"{section.kind}-stages", _stages(section, staged)
    others = [row for row in section.measured if not row.ours]
    if ours and others and section.kind != "batch":
        yield f"{section.kind}-ratios", _ratios(section, ours, others)


def _stages(section: Section, rows: Sequence[Row]) -> Figure:
    """A panel an engine: the median of every stage, its roofline under it."""
    shown = [_visible(row) for row in rows]
    heights = [0.42 * len(names) + 0.8 for names in shown]
    figure = Figure(figsize=(8, sum(heights) + 0.5), layout="constrained")
    _title(figure, section)
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, row, names in zip(panels, rows, shown, strict=True):
        medians = [percentile(row.stages[name], 50) for name in names]
        rooflines = [row.roofline(name) or 0.0 for name in names]
        places = range(len(names))
        axes.barh(
            [p - _BAR / 2 for p in places], [m * 1e3 for m in medians], _BAR, color=OURS, label="measured"
        )
        axes.barh(
            [p + _BAR / 2 for p in places],
            [r * 1e3 for r in rooflines],
            _BAR,
            color=ROOFLINE,
            label="roofline",
        )
        for place, median, roofline in zip(places, medians, rooflines, strict=True):
            note = f" {time(median)}" + (f", {median / roofline:.1f} x its roofline" if roofline else "")
            axes.text(median * 1e3, place - _BAR / 2, note, va="center", fontsize=8, color=INK)
        axes.set_yticks(list(places), names)
        axes.invert_yaxis()
        axes.margins(x=0.35)
        axes.set_title(f"{row.name}: {time(row.median)}", loc="left", fontsize=9)
        _plain(axes, "milliseconds a run (median)")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _visible(row: Row) -> list[str]:
    return [name for name, values in row.stages.items() if percentile(values, 50) >= _VISIBLE * row.median]


def _ratios(section: Section, ours: Sequence[Row], others: Sequence[Row]) -> Figure:
    """A group of bars a peer: how many times faster each of ours is."""
    figure = Figure(figsize=(8, 0.6 + (0.2 + 0.22 * len(ours)) * len(others) + 0.6), layout="constrained")
    axes = figure.subplots()
    _title(figure, section)
    width = 0.8 / len(ours)
    for number, row in enumerate(ours):
        ratios = [other.median / row.median for other in others]
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(others))]
        axes.barh(places, ratios, width * 0.9, color=COLOURS[number % len(COLOURS)], label=row.name)
        for place, ratio in zip(places, ratios, strict=True):
            axes.text(ratio, place, f" {ratio:.1f} x", va="center", fontsize=8, color=INK)
    names = [f"{row.name}\n({row.does_less})" if row.does_less else row.name for row in others]
    axes.set_yticks(range(len(others)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.axvline(1, color=FAINT, linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, "times faster than the peer (median against median)")
    return figure


def _sweep(section: Section, rows: Sequence[Row]) -> Figure:
    """A line an engine, its roofline dashed; categories where the axis is not a number."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    _title(figure, section)
    for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
        line = [row for row in rows if row.name == name]
        colour = COLOURS[number % len(COLOURS)]
        points: list[Any] = [row.point for row in line]
        axes.plot(points, [row.median * 1e3 for row in line], "o-", color=colour, label=name)
        if all(row.whole_roofline for row in line):
            rooflines = [(row.whole_roofline or 0) * 1e3 for row in line]
            axes.plot(points, rooflines, ".--", color=colour, linewidth=1, label=f"{name}: roofline")
    if all(isinstance(row.point, int) for row in rows):
        axes.set_xticks(list(dict.fromkeys(row.point for row in rows if isinstance(row.point, int))))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("milliseconds (median)", fontsize=8)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, section.axis)
    return figure


def _title(figure: Figure, section: Section) -> None:
    figure.suptitle(fill(section.title, 84), fontsize=9, color=INK)


def _plain(axes: Axes, label: str) -> None:
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
