"""Tables and styled texts of the commands, safe for a terminal whatever they quote."""

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from ragengine.messages import shown, shown_lines

_LEAST = 8  # cells that a text is given, whatever stands beside it


class SafeConsole(Console):
    """A console that shows control characters instead of sending them, and reads no markup or emoji codes.

    What is meant for the terminal, colours and the cursor of progress bars, are styles and control segments.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, whose texts a terminal cannot obey."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown_lines(segment.text))


class OneLine:
    """A foreign text in one line, as the last column of a table: it ends at a word where there is no room.

    What breaks lines is written out, as by :func:`line`.
    """

    def __init__(self, *parts: tuple[str, str]) -> None:
        """``parts`` are texts with their styles; two spaces part them."""
        self._parts = [(shown(text), style) for text, style in parts]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        yield self._cut(options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_LEAST, options.max_width), min(self._text.cell_len, options.max_width))

    @property
    def _text(self) -> Text:
        return Text("  ").join(Text(*part) for part in self._parts if part[0])

    def _cut(self, width: int) -> Text:
        text = self._text
        end = len(cut_at_word(text.plain, width))
        if end == len(text):
            return text
        return text[: end - 1].append("…")


def cut_at_word(text: str, width: int) -> str:
    """A text of one line in at most ``width`` cells; an ellipsis stands for the words that have no room."""
    if cell_len(text) <= width:
        return text
    kept = set_cell_size(text, max(width - 1, 0)).rstrip()
    words, space, _ = kept.rpartition(" ")
    if space and not text[len(kept) :].startswith(" "):
        kept = words.rstrip()
    return f"{kept}…"


def line(text: str, style: str = "") -> Text:
    """A foreign text for a place of one line, such as a table's cell."""
    return Text(shown(text), style)
