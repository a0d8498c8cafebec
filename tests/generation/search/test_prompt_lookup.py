"""Suggestions are what follows the end of an output where the documents have it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.generation.search.prompt_lookup import PromptLookup

PAD, END = -1, 9


def lookup(*documents: list[int], size: int | None = 2) -> PromptLookup:
    width = max(map(len, documents))
    ids = np.array([[*row, *[PAD] * (width - len(row))] for row in documents])
    return PromptLookup(ids, size, [END])


@pytest.mark.parametrize(
    ("documents", "output", "expected"),
    [
        ([[1, 2, 3, 4, 5]], [2], [3, 4, 5]),
        ([[1, 2, 3, 4, 5]], [7, 2], [3, 4, 5]),  # the last token alone, where the last two are not there
        ([[1, 2, 8, 3, 2, 4]], [3, 2], [4]),  # two tokens before one
        ([[1, 2, 8], [5, 2, 6]], [5, 2], [6]),  # in a later document, before one token in the first
        ([[1, 2, 8], [5, 2, 6]], [2], [8]),  # the first document first
        ([[2, END, 2, 7]], [2], [7]),  # a place that something follows
        ([[1, 2, 3, END, 4]], [1, 2], [3]),
        ([[3, 3, 3, 4]], [3, 3], [3, 4]),
        ([[1, 2]], [2], []),
        ([[1, 2]], [], []),
        ([[1, 2]], [PAD], []),
    ],
)
def test_what_is_suggested(documents: list[list[int]], output: list[int], expected: list[int]) -> None:
    assert lookup(*documents).suggested(output, 3) == expected


def test_without_a_size_the_last_two_tokens_are_looked_for() -> None:
    assert lookup([5, 2, 3, 6], [1, 2, 3, 8], size=None).suggested([1, 2, 3], 1) == [6]
    assert lookup([7, 3, 1], [2, 3, 8], size=None).suggested([2, 3], 1) == [8]
    assert lookup([5, 2, 3, 6], [1, 2, 3, 8], size=3).suggested([1, 2, 3], 1) == [8]


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=3),
    st.lists(st.integers(0, 4), max_size=6),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_a_suggestion_follows_the_longest_end_that_is_there(
    documents: list[list[int]], output: list[int], size: int, count: int
) -> None:
    found = lookup(*documents, size=size).suggested(output, count)
    expected: list[int] = []
    for length in range(min(size, len(output)), 0, -1):
        for row in documents:
            for place in range(len(row) - length):
                if not expected and row[place : place + length] == output[-length:]:
                    expected = row[place + length : place + length + count]
    assert found == expected
