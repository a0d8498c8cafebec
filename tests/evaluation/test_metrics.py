"""Measures of one answer on hand-made cases, and by the definitions of SQuAD and Hugging Face's eval_rag."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.evaluation import exact_match, f1, label_match, normalize_answer
from tests.support.texts import WORDS

TEXT = WORDS | st.text(st.characters(max_codepoint=0x24F), max_size=12)
REFERENCES = st.lists(TEXT, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" The  Cat! ", "cat"),
        ("an a the", ""),
        ("U.S.A.", "usa"),
        ("theory", "theory"),
        ("Côte d'Ivoire", "côte divoire"),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_exact_match_takes_any_reference() -> None:
    assert exact_match(" the Euro.", ["dollar", "euro"])
    assert not exact_match("euros", ["euro"])
    assert not exact_match("", ["euro"])


def test_f1_is_the_best_word_overlap() -> None:
    assert f1("new york city", ["york"]) == pytest.approx(0.5)  # precision 1/3, recall 1
    assert f1("new york city", ["york", "new york"]) == pytest.approx(0.8)
    assert f1("paris", ["london"]) == 0.0
    assert f1("", []) == 0.0


def test_labels_are_compared_as_they_are() -> None:
    assert label_match(" SUPPORTS", ["SUPPORTS"])
    assert not label_match("supports", ["SUPPORTS"])


# transformers 4, examples/research_projects/rag/utils_rag.py and eval_rag.py, restated
def hf_normalize(text: str) -> str:
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def hf_exact_match_score(prediction: str, truth: str) -> bool:
    return hf_normalize(prediction) == hf_normalize(truth)


def hf_f1_score(prediction: str, truth: str) -> float:
    tokens, truths = hf_normalize(prediction).split(), hf_normalize(truth).split()
    same = sum((Counter(tokens) & Counter(truths)).values())
    if same == 0:
        return 0
    precision, recall = same / len(tokens), same / len(truths)
    return (2 * precision * recall) / (precision + recall)


@given(TEXT, REFERENCES)
def test_answers_are_measured_as_eval_rag_does(answer: str, references: list[str]) -> None:
    assert exact_match(answer, references) == max(hf_exact_match_score(answer, r) for r in references)
    assert f1(answer, references) == pytest.approx(max(hf_f1_score(answer, r) for r in references))


@given(TEXT, REFERENCES)
def test_laws_of_the_measures(answer: str, references: list[str]) -> None:
    value = f1(answer, references)
    assert 0 <= value <= 1 + 1e-12
    assert f1(answer, references[:1]) == pytest.approx(f1(references[0], [answer]))
    if exact_match(answer, references) and normalize_answer(answer):
        assert value == pytest.approx(1)
    assert f1(answer, references[::-1]) == value
    assert exact_match(answer, references[::-1]) == exact_match(answer, references)
    words = answer.split()
    assert f1(" ".join(reversed(words)), references) == pytest.approx(f1(" ".join(words), references))
