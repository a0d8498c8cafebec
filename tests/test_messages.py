"""Words of others in our messages: one line, of bounded length, that no terminal obeys."""

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.errors import DeadlineError, InputError, RagEngineError
from ragengine.messages import log, one_line, short_repr, shown, shown_lines


def harmless(text: str) -> bool:
    """Whether a terminal shows every character of a text and obeys none."""
    return all(
        character.isprintable() or unicodedata.category(character) == "Zs" or character in "\u200c\u200d"
        for character in text
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("No such file.", "No such file"),
        ("a\n  b\tc", "a b c"),
        ("\x1b[2Jcleared\u202eback", r"\x1b[2Jcleared\u202eback"),
        ("x" * 1000, "x" * 397 + "..."),
        (ValueError("a\nb"), "a b"),
    ],
)
def test_it_becomes_one_line(said: object, expected: str) -> None:
    assert one_line(said) == expected


@given(said=st.text())
def test_whatever_it_is_it_can_be_printed(said: str) -> None:
    assert harmless(one_line(said))
    assert len(one_line(said)) <= 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reykjavík 東京 \u00a0\u3000 👩\u200d🚀", "Reykjavík 東京 \u00a0\u3000 👩\u200d🚀"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("a\nb\r\tc\u2028d", r"a\nb\r\tc\u2028d"),
        ("\u202egnp.exe\u2066\ufeff\u200f", r"\u202egnp.exe\u2066\ufeff\u200f"),
        ("\udcff\U000e0041", r"\udcff\U000e0041"),
        ("C:\\x1b", "C:\\x1b"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(text=st.text(st.characters()))
def test_whatever_a_text_holds_it_is_harmless(text: str) -> None:
    assert harmless(shown(text))
    assert shown(shown(text)) == shown(text)
    assert shown_lines(text).split("\n") == [shown(part) for part in text.split("\n")]
    shown(text).encode("utf-8")


@pytest.mark.parametrize("kind", [RagEngineError, InputError, DeadlineError])
def test_an_error_is_one_harmless_line(kind: type[RagEngineError]) -> None:
    assert str(kind("no \x1b[2J\nhere")) == r"no \x1b[2J\nhere"


def test_the_log_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ragengine"):
        log.info("device auto is cpu: %s.", "\x1b[2J\nevil")
    assert caplog.messages == [r"device auto is cpu: \x1b[2J\nevil."]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7, "7"),
        (10**5000, "a number of 16610 bits"),
        ({"n": [-(10**5000)]}, "{'n': [a number of 16610 bits]}"),
    ],
    ids=["short", "long", "within"],
)
def test_numbers_that_python_does_not_write(value: object, said: str) -> None:
    assert short_repr(value) == said
