"""Measures of the documents of one question: by answer string, by passage id and by title.

Recall@k is whether one of the first k documents is right, as in DPR's top-k accuracy; where several passages
are known, it is the share of these among the first k.  Precision@k is the share of the k places that hold a
right document.
"""

import unicodedata
from collections.abc import Sequence

from ragengine.evaluation.metrics import answer_pattern, decomposed
from ragengine.evaluation.questions import Question
from ragengine.results import Document


def has_answer(document: Document, references: Sequence[str]) -> bool:
    """Whether a reference's words occur in the document's text, in order and uncased (DPR's `has_answer`)."""
    return _holds(document, [_words(reference) for reference in references])


def retrieval_values(
    question: Question, documents: Sequence[Document], ks: Sequence[int], n_docs: int
) -> dict[str, float]:
    """The retrieval figures of one question by name.

    Args:
        question: its passage ids and titles add figures of their own.
        documents: those that were read, best first, at most ``n_docs``.
        ks: the k of each figure; there is no precision for a k above ``n_docs``.
        n_docs: how many documents were to be read.
    """
    places = [k for k in ks if k <= n_docs]
    values: dict[str, float] = {}
    if question.answers or question.answers_known:
        hits = _hits(question, documents)
        values |= {f"recall@{k}": float(any(hits[:k])) for k in ks}
        values |= {f"precision@{k}": sum(hits[:k]) / k for k in places}
    if gold := question.gold_ids:
        found = {k: len(gold.intersection(document.id for document in documents[:k])) for k in ks}
        values |= {f"passage_recall@{k}": found[k] / len(gold) for k in ks}
        values |= {f"passage_precision@{k}": found[k] / k for k in places}
    if question.titles:
        titles = [document.title for document in documents]
        values |= {f"title_precision@{k}": title_precision(titles, question.titles, k) for k in places}
    return values


def title_precision(titles: Sequence[str], gold: Sequence[str], k: int) -> float:
    """The number of different right titles among the first k, over k (precision@k of `eval_rag`)."""
    return len({_stripped(title) for title in titles[:k]} & set(gold)) / k


def _hits(question: Question, documents: Sequence[Document]) -> list[bool]:
    """Whether each document holds an answer."""
    if question.regex:
        patterns = [answer_pattern(answer) for answer in question.answers]
        texts = [decomposed(document.text) for document in documents]
        return [any(pattern.search(text) for pattern in patterns) for text in texts]
    targets = [_words(reference) for reference in question.answers]
    return [_holds(document, targets) for document in documents]


def _holds(document: Document, targets: Sequence[list[str]]) -> bool:
    words = _words(document.text)
    return any(
        words[start : start + len(target)] == target
        for target in targets
        if target
        for start in _places(words, target[0])
    )


def _places(words: list[str], first: str) -> list[int]:
    return [place for place, word in enumerate(words) if word == first]


def _words(text: str) -> list[str]:
    """The lower-cased tokens of DPR's `SimpleTokenizer`: runs of letters, numbers and accents, or a sign."""
    return [word.lower() for word in decomposed(text).translate(_SPACED).split()]


class _Spaced(dict[int, str]):
    """A table for `str.translate` that puts spaces between tokens, filled as characters occur.

    It uses Unicode categories, for which Python's regular expressions have no classes.
    """

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        kind = unicodedata.category(sign)[0]
        if kind in "ZC":  # separators, and what is invisible: controls, soft hyphens, zero-width spaces
            sign = " "
        elif kind not in "LNM":
            sign = f" {sign} "
        self[code] = sign
        return sign


_SPACED = _Spaced()


def _stripped(title: str) -> str:
    """A title without the quotation marks that a TSV put around it (`eval_rag`'s `strip_title`)."""
    return title.removeprefix('"').removesuffix('"')
