"""Tables and styled texts of the commands, safe for a terminal whatever they quote."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ragengine.messages import shown, shown_lines


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


def line(text: str, style: str = "") -> Text:
    """A foreign text for a place of one line, such as a table's cell."""
    return Text(shown(text), style)
