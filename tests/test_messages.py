"""Words of others in our messages: one line, of bounded length, that no terminal obeys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.messages import one_line


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("No such file.", "No such file"),
        ("a\n  b\tc", "a b c"),
        ("\x1b[2Jcleared\u202eback", "[2Jcleared back"),
        ("x" * 1000, "x" * 397 + "..."),
        (ValueError("a\nb"), "a b"),
    ],
)
def test_it_becomes_one_line(said: object, expected: str) -> None:
    assert one_line(said) == expected


@given(said=st.text())
def test_whatever_it_is_it_can_be_printed(said: str) -> None:
    assert one_line(said).isprintable()
    assert len(one_line(said)) <= 400
