"""Exact match, F1 and ROUGE-L as SQuAD, KILT and DPR compute them, each restated from its own program."""

import re
import string
from collections.abc import Callable

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from ragengine.evaluation.definitions import answer_measures
from tests.evaluation.test_metrics import hf_exact_match_score, hf_f1_score
from tests.support.texts import WORDS

# What the definitions disagree about: accents of their own, joiners, full stops, repeated words, articles
SIGNS = st.text(st.sampled_from("aAnthe\u0301\u200dⒶ.,_ \n\u00a0²İßب\u064e"), max_size=14)
REPEATED = st.lists(st.sampled_from(["the", "a", "cat", "sat", ".", "b.", "c.d"]), max_size=9).map(" ".join)
TEXT = WORDS | SIGNS | REPEATED
REFERENCES = st.lists(TEXT, min_size=1, max_size=3)


def normalised(text: str, remove: Callable[[str, str, str], str]) -> str:
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(remove(r"\b(a|an|the)\b", " ", text).split())


# facebookresearch/KILT, kilt/eval_downstream.py, with pltrdy/rouge 1.0.1, `rouge_l_summary_level`, restated
def rouge_f(answer: str, reference: str) -> float:
    said, truths = ([" ".join(s.split()) for s in text.split(".") if s] for text in (answer, reference))
    union = {word for truth in truths for one in said for word in lcs(truth.split(" "), one.split(" "))}
    recall = len(union) / len({word for truth in truths for word in truth.split(" ")})
    precision = len(union) / len({word for one in said for word in one.split(" ")})
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def lcs(x: list[str], y: list[str]) -> list[str]:
    """A longest common subsequence, which leaves out the last of y where it may, else the last of x."""
    if not x or not y:
        return []
    if x[-1] == y[-1]:
        return [*lcs(x[:-1], y[:-1]), x[-1]]
    up, left = lcs(x[:-1], y), lcs(x, y[:-1])
    return up if len(up) > len(left) else left


def kilt_takes(text: str) -> bool:
    """Whether KILT scores an answer or a reference: it refuses empty ones, and rouge full stops alone."""
    return bool(text.strip()) and bool(text.strip().replace(".", ""))


@given(TEXT.filter(kilt_takes), st.lists(TEXT.filter(kilt_takes), min_size=1, max_size=3))
@example("The cat. sat the cat", ["the cat sat . the mat", "a cat"])
@example("b a", ["a b"])
def test_kilt(answer: str, references: list[str]) -> None:
    assert answer_measures("kilt", long_answers=False)(answer, [*references, " "]) == {
        "exact_match": max(hf_exact_match_score(answer, one.strip()) for one in references),
        "f1": pytest.approx(max(hf_f1_score(answer, one.strip()) for one in references)),
        "rouge_l": pytest.approx(max(rouge_f(answer.strip(), one.strip()) for one in references)),
    }


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1 - 0.5e-8),
        ("the cat the cat", "the cat", 1 - 0.5e-8),  # only different words count
        ("Cat", "cat", 0),  # nothing is normalised
        ("b a", "a b", 0.5),
        ("down. sat", "he sat down", 0.8),  # sentence by sentence, both words are common
        ("...", "x", 0),  # an error in KILT
        ("", "the", 0),  # refused by KILT
        ("the", "", 0),
    ],
)
def test_rouge_l_of_kilt(answer: str, reference: str, expected: float) -> None:
    measured = answer_measures("kilt", long_answers=False)(answer, [reference])
    assert measured["rouge_l"] == pytest.approx(expected, abs=1e-8)


@given(TEXT, REFERENCES)
@example("a\u0301 b", ["b"])
def test_dpr(answer: str, references: list[str]) -> None:
    right = any(normalised(answer, regex.sub) == normalised(one, regex.sub) for one in references)
    assert answer_measures("dpr", long_answers=True)(answer, references) == {"exact_match": right}


@given(TEXT, REFERENCES)
@example("a\u0301 b", ["b"])
def test_squad(answer: str, references: list[str]) -> None:
    assert answer_measures("squad", long_answers=False)(answer, references) == {
        "exact_match": any(normalised(answer, re.sub) == normalised(one, re.sub) for one in references),
        "f1": pytest.approx(max(hf_f1_score(answer, one) for one in references)),
    }


def test_where_they_differ() -> None:
    """An accent of its own is a part of the word to DPR; words that come again do not count to KILT."""
    squad, kilt, dpr = (answer_measures(name, long_answers=True) for name in ("squad", "kilt", "dpr"))
    assert [by("a\u0301 b", ["\u0301 b"])["exact_match"] for by in (squad, kilt, dpr)] == [1, 1, 0]
    assert squad("x x x", ["x"])["rouge_l"] == 0.5
    assert kilt("x x x", ["x"])["rouge_l"] == pytest.approx(1)
