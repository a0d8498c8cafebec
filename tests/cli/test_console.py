"""Texts of others in a terminal: one line each, cut at words."""

import io

import pytest
from rich.table import Table

from ragengine.cli.console import OneLine, SafeConsole, cut_at_word


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("a passage of words", 18, "a passage of words"),
        ("a passage of words", 17, "a passage of…"),
        ("a passage of words", 13, "a passage of…"),
        ("a passage of words", 12, "a passage…"),
        ("a passage", 2, "a…"),
        ("Donaudampfschiff", 8, "Donauda…"),  # no word ends in time
        ("東京都 千代田区", 9, "東京都…"),  # two cells a character
        ("", 3, ""),
    ],
)
def test_a_text_is_cut_at_a_word(text: str, width: int, cut: str) -> None:
    assert cut_at_word(text, width) == cut


def printed(width: int, *parts: tuple[str, str]) -> list[str]:
    table = Table(box=None, padding=(0, 1), show_edge=False)
    table.add_column("n", no_wrap=True)
    table.add_column("document")
    table.add_row("1", OneLine(*parts))
    table.add_row("2", OneLine(("short", "")))
    console = SafeConsole(width=width)
    console.file = io.StringIO()
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_passage_with_line_breaks_is_one_row_of_a_table() -> None:
    parts = (("Title", "bold"), ("first line\nsecond line * item \x1b[2J", "dim"))
    assert printed(80, *parts)[1:] == [" 1  Title  first line\\nsecond line * item \\x1b[2J", " 2  short"]
    short = printed(32, *parts)[1]
    assert short.startswith(" 1  Title  first")
    assert short.endswith("…")
    assert len(printed(32, *parts)) == 3
    assert printed(80, ("", "bold"), ("text", ""))[1] == " 1  text"
