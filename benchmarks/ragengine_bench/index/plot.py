"""Plots of an index benchmark: recall against questions per second, and against bytes a vector."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ragengine.storage.atomic import output_file
from ragengine_bench.index.methods import MethodResult, Point

_COLOURS = {
    "flat": "#1f2933",
    "ivf": "#b45309",
    "ivf-pq": "#7c3aed",
    "opq-ivf-pq": "#2f78b7",
    "hnsw": "#15803d",
}


def plot_methods(title: str, results: Sequence[MethodResult], path: Path) -> None:
    """Write ``path`` with the suffixes ``.png`` and ``.svg``: one line a method, best points only."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    speed, size = figure.subplots(1, 2)
    for number, result in enumerate(results):
        colour = _COLOURS[result.method]
        frontier = _frontier(result)
        label = result.factory if result.count == results[0].count else f"{result.factory} ({result.count:,})"
        speed.plot(
            [p.recall for p in frontier],
            [1000 / p.median_ms for p in frontier],
            "o-",
            color=colour,
            label=label,
            markersize=4,
        )
        size.plot(max(p.recall for p in frontier), result.bytes_per_vector, "o", color=colour)
        size.annotate(
            result.method,
            (max(p.recall for p in frontier), result.bytes_per_vector),
            textcoords="offset points",
            xytext=(-7, 5 - 14 * (number % 2)),  # neighbours' names do not overlap
            ha="right",
        )
    speed.set(xlabel="recall@5 after re-ranking", ylabel="questions per second, one at a time", yscale="log")
    size.set(xlabel="highest recall@5 after re-ranking", ylabel="index file, bytes a vector", yscale="log")
    for axes in (speed, size):
        axes.grid(alpha=0.3)
        axes.axvline(0.95, color="#7b8794", linestyle=":", linewidth=1)
    speed.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    for kind in ("png", "svg"):
        with output_file(path.with_suffix(f".{kind}")) as file:
            figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


def _frontier(result: MethodResult) -> list[Point]:
    """The points that no other beats in both recall and speed, by recall."""
    points = sorted(result.points, key=lambda p: (-p.recall, p.median_ms))
    kept: list[Point] = []
    for point in points:
        if not kept or point.median_ms < kept[-1].median_ms:
            kept.append(point)
    return kept[::-1]
