"""The measures of an answer by the definitions of SQuAD, KILT and DPR (docs/guides/evaluation.md)."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from ragengine.evaluation.long_answers import rouge_scorer
from ragengine.evaluation.metrics import exact_match, f1, normalize_answer
from ragengine.installation import missing_package

Metrics: TypeAlias = Literal["squad", "kilt", "dpr"]
AnswerMeasures: TypeAlias = Callable[[str, Sequence[str]], dict[str, float]]
"""From an answer and its references, at least one, to the figures by name."""

_EPSILON: Final = 1e-8  # of the package rouge, which KILT uses


def answer_measures(metrics: Metrics, *, long_answers: bool) -> AnswerMeasures:
    """The measures of one answer.

    Args:
        metrics: whose definitions.
        long_answers: whether to measure ROUGE-L as well where it is not part of the definitions.

    Raises:
        DependencyError: a package that a definition needs is not installed.
    """
    if metrics == "kilt":
        return kilt_measures
    if metrics == "dpr":
        return _dpr_measures()
    rouge_l = rouge_scorer() if long_answers else None

    def squad_measures(answer: str, references: Sequence[str]) -> dict[str, float]:
        values = {"exact_match": float(exact_match(answer, references)), "f1": f1(answer, references)}
        return values if rouge_l is None else {**values, "rouge_l": rouge_l(answer, references)}

    return squad_measures


def kilt_measures(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Exact match, F1 and ROUGE-L of KILT's ``eval_downstream``.

    KILT refuses an empty answer and a question without a reference that has a word: both count as wrong here.
    """
    answer = answer.strip()
    references = [stripped for reference in references if (stripped := reference.strip())]
    if not answer or not references:
        return {"exact_match": 0.0, "f1": 0.0, "rouge_l": 0.0}
    return {
        "exact_match": float(exact_match(answer, references)),
        "f1": f1(answer, references),
        "rouge_l": max(_rouge_l(answer, reference) for reference in references),
    }


def _dpr_measures() -> AnswerMeasures:
    """Exact match of DPR's reader: SQuAD's, with the word boundaries of the package ``regex``.

    To ``re`` an accent that is a character of its own ends a word, to ``regex`` it is a part of it: of
    "a\\u0301" the first removes the article "a".
    """
    try:
        import regex
    except ModuleNotFoundError as reason:
        raise missing_package("DPR's exact match needs", reason, "eval") from reason
    articles = regex.compile(r"\b(a|an|the)\b")

    def dpr_measures(answer: str, references: Sequence[str]) -> dict[str, float]:
        target = normalize_answer(answer, articles)
        return {"exact_match": float(any(normalize_answer(one, articles) == target for one in references))}

    return dpr_measures


def _rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L's F1 of the package rouge 1.0, which counts different words, sentence by sentence."""
    ours, theirs = _sentences(answer), _sentences(reference)
    if not ours or not theirs:  # there are full stops alone, for which rouge raises an error
        return 0.0
    common = set().union(*(_common_words(one, other) for one in theirs for other in ours))
    precision = len(common) / len({word for words in ours for word in words})
    recall = len(common) / len({word for words in theirs for word in words})
    return 2 * precision * recall / (precision + recall + _EPSILON)


def _sentences(text: str) -> list[list[str]]:
    """The words of each sentence; one of white space alone has the empty word."""
    return [part.split() or [""] for part in text.split(".") if part]


def _common_words(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The words of a longest common subsequence; of several, the one that rouge walks back to."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            same = word == other
            lengths[i][j] = lengths[i - 1][j - 1] + 1 if same else max(lengths[i - 1][j], lengths[i][j - 1])
    words = set()
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            words.add(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words
