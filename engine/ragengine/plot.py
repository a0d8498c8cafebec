"""Figure 2 of the paper: an answer's tokens over its documents, shaded by the posterior p(z | x, y_<=t).

Long answers continue in further panels below.  All sizes are in inches, so that a cell is as large in an
answer of three tokens as in one of three hundred.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.errors import InputError
from ragengine.installation import check_packages
from ragengine.storage.atomic import output_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_WIDTH, CELL_HEIGHT = 0.40, 0.27
MOST_TOKENS: Final = 24  # of a panel
TITLES, BARS, MARGIN, GAP = 2.35, 0.85, 0.25, 0.18
HEADER = 0.80  # question, answer and what the shades mean
COLUMN_HEADS = 0.30  # over the bars
LETTER = 0.075  # the width of a character of a token
LONGEST_TITLE, LONGEST_TOKEN = 30, 18
SMALLEST_SHARE = 0.05  # printed as a number in its cell
INK, FAINT, LINE = "#1f2933", "#7b8794", "#e4e7eb"
SHADES = ("#ffffff", "#e6f0fa", "#b9d5ee", "#74aad8", "#2f78b7", "#084594")
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Arial Unicode MS")
_SUFFIXES = (".png", ".svg")


@dataclass(frozen=True, eq=False)
class PosteriorPlot:
    """What is drawn.

    question, answer  the texts above
    notes             short texts below them
    tokens            the answer's T tokens
    posteriors        of each token over the D documents, float32 [T, D]
    titles            of the D documents
    priors, shares    a bar for each document, from 0 to 1
    """

    question: str
    answer: str
    notes: tuple[str, ...]
    tokens: tuple[str, ...]
    posteriors: FloatArray
    titles: tuple[str, ...]
    priors: tuple[float, ...]
    shares: tuple[float, ...]


def draw(plot: PosteriorPlot, path: str | Path | None = None) -> "Figure":
    """Draw the figure, and write it to ``path`` (PNG or SVG by its suffix) if there is one.

    Touches no global state of matplotlib, so threads and notebooks keep theirs.

    Raises:
        DependencyError: matplotlib is not installed.
        InputError: the path has another suffix or cannot be written.
    """
    target = None if path is None else Path(path)
    check_drawable(target)
    figure = _Drawing.of(plot).figure()
    if target is not None:
        write_figure(figure, target)
    return figure


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure for whose path :func:`check_drawable` holds, the same bytes each time."""
    kind = path.suffix.lower()[1:]
    with output_file(path) as file:
        figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


def check_drawable(path: Path | None) -> None:
    """Raise what :func:`draw` would, before there is anything to draw: matplotlib is missing, or a suffix."""
    if path is not None and path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"{path} has the suffix {path.suffix!r}; a plot is written as .png or .svg, so name it so."
        )
    check_packages("Plots need", ("matplotlib",), "plot")


@dataclass
class _Drawing:
    """One figure in the making; ``labels`` are the tokens' texts as drawn."""

    plot: PosteriorPlot
    labels: list[str]
    fonts: "_Fonts"

    @classmethod
    def of(cls, plot: PosteriorPlot) -> "_Drawing":
        fonts = _Fonts.installed()
        tokens = [token.replace("\n", "⏎").strip(" ") or "␣" for token in plot.tokens]
        return cls(plot, [fonts.drawable(_shortened(token, LONGEST_TOKEN)) for token in tokens], fonts)

    def figure(self) -> "Figure":
        from matplotlib.figure import Figure

        rows, tokens = self.plot.posteriors.shape[1], len(self.labels)
        panels = -(-tokens // MOST_TOKENS)
        columns = -(-tokens // panels)  # panels of about equal length
        label_height = 0.16 + LETTER * max(map(len, self.labels))
        panel_height = max(label_height, COLUMN_HEADS) + rows * CELL_HEIGHT
        width = MARGIN + TITLES + columns * CELL_WIDTH + 2 * (GAP + BARS) + MARGIN
        width = max(width, 2 * MARGIN + 6.2)
        height = HEADER + panels * (panel_height + GAP) + MARGIN - GAP
        figure = Figure(figsize=(width, height), facecolor="white")
        self._header(figure, width, height)
        for panel in range(panels):
            start, stop = panel * columns, min(tokens, (panel + 1) * columns)
            bottom = height - HEADER - (panel + 1) * panel_height - panel * GAP
            box = (MARGIN + TITLES, bottom, (stop - start) * CELL_WIDTH, rows * CELL_HEIGHT)
            self._heat_map(_axes(figure, width, height, box), start, stop)
            if panel == 0:
                left = MARGIN + TITLES + columns * CELL_WIDTH + GAP
                bars = ("p(z|x)", self.plot.priors), ("p(z|x,y)", self.plot.shares)
                for number, (name, values) in enumerate(bars):
                    box = (left + number * (BARS + GAP), bottom, BARS, rows * CELL_HEIGHT)
                    self._bars(_axes(figure, width, height, box), name, values)
        return figure

    def _header(self, figure: "Figure", width: float, height: float) -> None:
        lines = [
            (self.plot.question, 0.0, 9.5, FAINT, "normal"),
            (self.plot.answer.strip() or "(no text)", 0.21, 11.5, INK, "bold"),
            ("  ·  ".join(self.plot.notes), 0.43, 7.5, FAINT, "normal"),
        ]
        for text, drop, size, colour, weight in lines:
            figure.text(
                MARGIN / width,
                1 - (MARGIN * 0.7 + drop) / height,
                self.fonts.drawable(_shortened(text, int((width - 2 * MARGIN) / (0.0088 * size)))),
                **self.fonts.style(size, colour, fontweight=weight, va="top"),
            )

    def _heat_map(self, axes: "Axes", start: int, stop: int) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("posterior", SHADES)
        posteriors = self.plot.posteriors[start:stop].T  # [D, tokens of this panel]
        edges = (np.arange(stop - start + 1), np.arange(len(posteriors) + 1))
        axes.pcolormesh(*edges, posteriors, cmap=shades, vmin=0, vmax=1, edgecolors=LINE, linewidth=0.6)
        axes.invert_yaxis()
        for (row, column), posterior in np.ndenumerate(posteriors):
            if posterior >= SMALLEST_SHARE:
                style = self.fonts.style(6.5, "white" if posterior > 0.55 else INK, ha="center", va="center")
                axes.text(column + 0.5, row + 0.53, f"{posterior * 100:.0f}", **style)
        for column, label in enumerate(self.labels[start:stop]):
            style = self.fonts.style(8, INK, rotation=90, ha="center", va="bottom", rotation_mode="default")
            axes.text(column + 0.5, -0.2, label, **style)
        for row, name in enumerate(self.plot.titles):
            title = self.fonts.drawable(_shortened(name, LONGEST_TITLE))
            style = self.fonts.style(8, INK, ha="right", va="center")
            axes.text(-0.15 / CELL_WIDTH, row + 0.5, f"{title}   {row + 1}", **style)

    def _bars(self, axes: "Axes", name: str, values: tuple[float, ...]) -> None:
        rows = np.arange(len(values))
        axes.set_xlim(0, 1)
        axes.set_ylim(len(values), 0)
        axes.barh(rows + 0.5, 1, height=0.55, color="#f3f5f7")
        axes.barh(rows + 0.5, values, height=0.55, color=SHADES[4])
        for row, value in enumerate(values):
            # Beside the bar; where that leaves no room, inside its end.
            inside = value > 0.65
            style = self.fonts.style(6.5, "white" if inside else INK, va="center")
            axes.text(
                value - 0.04 if inside else value + 0.04,
                row + 0.52,
                f"{value:.3f}",
                ha="right" if inside else "left",
                **style,
            )
        axes.text(0, -0.2, name, **self.fonts.style(7.5, FAINT, va="bottom"))


@dataclass(frozen=True)
class _Fonts:
    """Installed fonts and the characters they have: any other would be drawn as a box, with a warning."""

    names: list[str]
    characters: frozenset[int]

    @classmethod
    def installed(cls) -> "_Fonts":
        from matplotlib.font_manager import findfont, fontManager, get_font

        there = {font.name for font in fontManager.ttflist}
        names = [name for name in FONTS if name in there]
        return cls(
            names, frozenset(code for name in names for code in get_font(findfont(name)).get_charmap())
        )

    def drawable(self, text: str) -> str:
        """The text with a box for each character that no font has, and without control characters."""
        shown = (c for c in text.replace("\n", " ") if not unicodedata.category(c).startswith("C"))
        return "".join(c if ord(c) in self.characters else "□" for c in shown)

    def style(self, size: float, colour: str, **more: Any) -> dict[str, Any]:
        """Arguments of a text; a dollar sign in it is a dollar sign, not mathematics."""
        return {"fontsize": size, "color": colour, "fontfamily": self.names, "parse_math": False, **more}


def _axes(figure: "Figure", width: float, height: float, box: tuple[float, float, float, float]) -> "Axes":
    """Bare axes at (left, bottom, width, height) inches."""
    left, bottom, wide, high = box
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.set_axis_off()
    return axes


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
