"""Measures of one answer's text against its references."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str, articles: Any = _ARTICLES) -> str:
    """Lower-case a text and remove punctuation, articles and extra spaces (SQuAD's `normalize_answer`).

    Args:
        text: any text.
        articles: the pattern of an article, compiled.
    """
    return " ".join(articles.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """Whether the normalised answer equals a normalised reference (SQuAD's `exact_match_score`).

    Args:
        answer: what was answered.
        references: the right answers.
    """
    return normalize_answer(answer) in map(normalize_answer, references)


def f1(answer: str, references: Sequence[str]) -> float:
    """The best harmonic mean of word precision and recall over the references (SQuAD's `f1_score`).

    Args:
        answer: what was answered.
        references: the right answers.

    Returns:
        0 to 1; 0 without references.
    """
    words = normalize_answer(answer).split()
    return max((_f1(words, normalize_answer(reference).split()) for reference in references), default=0.0)


def regex_match(answer: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches from the start of the answer (DrQA's `regex_match_score`)."""
    answer = decomposed(answer.strip())
    return any(answer_pattern(pattern).match(answer) for pattern in patterns)


@lru_cache(maxsize=4096)
def answer_pattern(pattern: str) -> re.Pattern[str]:
    """Compile an answer's pattern as DrQA and DPR do, for texts that are :func:`decomposed`.

    Raises:
        re.error: it is not a regular expression.
    """
    return re.compile(decomposed(pattern), re.IGNORECASE | re.UNICODE | re.MULTILINE)


def decomposed(text: str) -> str:
    """Separate letters from their accents (NFD), as DrQA and DPR do to compare texts."""
    return unicodedata.normalize("NFD", text)


def label_match(label: str, references: Sequence[str]) -> bool:
    """Whether a class label is a reference, apart from white space around it (FEVER's label accuracy)."""
    return label.strip() in {reference.strip() for reference in references}


def _f1(words: list[str], reference: list[str]) -> float:
    common = sum((Counter(words) & Counter(reference)).values())
    return 2 * common / (len(words) + len(reference)) if common else 0.0
