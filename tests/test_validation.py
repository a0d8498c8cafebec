"""Questions, answers, labels and flags of a call: what is taken, and how the first wrong one is named."""

from typing import Any

import numpy as np
import pytest

from ragengine.errors import InputError
from ragengine.validation import (
    LONGEST_TEXT,
    as_list,
    checked_answers,
    checked_flag,
    checked_labels,
    checked_question,
    checked_questions,
    checked_text,
)


def test_questions_are_one_or_several() -> None:
    assert checked_question("why?") == "why?"
    assert checked_questions("why?") == ["why?"]
    assert checked_questions(("a", "b")) == ["a", "b"]
    assert checked_questions(np.array(["a", "b"], object)) == ["a", "b"]
    assert checked_questions([]) == []
    for wrong, message in (
        (5, "A question is int"),
        (["a", None], "Question 1 is NoneType; it must be a str"),
        ({"a": 1}, "A question is dict"),
        (b"bytes", "A question is bytes"),
    ):
        with pytest.raises(InputError, match=message):
            checked_questions(wrong)


def test_a_text_has_a_length_and_is_unicode() -> None:
    assert checked_text("It", "x" * LONGEST_TEXT)
    with pytest.raises(InputError, match=f"It has {LONGEST_TEXT + 1} characters, at most {LONGEST_TEXT}"):
        checked_text("It", "x" * (LONGEST_TEXT + 1))
    with pytest.raises(InputError, match="It has half a surrogate pair at character 2"):
        checked_text("It", "ab\ud800")


def test_answers_are_one_a_question() -> None:
    assert checked_answers("a", 1, single=True) == ["a"]
    assert checked_answers([3, 2], 1, single=True) == [[3, 2]]  # token ids
    assert checked_answers(["a", [3, 2]], 2, single=False) == ["a", [3, 2]]
    with pytest.raises(InputError, match="1 answers for 2 questions"):
        checked_answers(["a"], 2, single=False)
    with pytest.raises(InputError, match="Answer 1 has half a surrogate"):
        checked_answers(["a", "\udc00"], 2, single=False)


def test_labels_are_different_texts() -> None:
    assert checked_labels(["a", "b"]) == ["a", "b"]
    for wrong in ([], ["a", "a"], ["a", 5], "ab", {"a", "b"}):
        with pytest.raises(InputError, match="labels is"):
            checked_labels(wrong)


def test_a_flag_is_true_false_or_none() -> None:
    assert [checked_flag("f", value) for value in (True, False, None)] == [True, False, None]
    for wrong in (1, "yes", 0.0):
        with pytest.raises(InputError, match=r"f is .*True, False or None"):
            checked_flag("f", wrong)


@pytest.mark.parametrize("wrong", ["text", b"b", {"a": 1}, {1}, 5, None, np.array(3)], ids=repr)
def test_what_has_no_order_is_no_list(wrong: Any) -> None:
    assert as_list((x for x in (1, 2)), "it", "a list") == [1, 2]
    with pytest.raises(InputError, match=r"^it is "):
        as_list(wrong, "it", "a list")
