"""The documents of a call: brought by the caller or found, with p(z | x), and which of them are read."""

import math
import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.errors import IndexFolderError, InputError
from ragengine.generation.marginalization import log_prior
from ragengine.messages import short_repr
from ragengine.results import Document
from ragengine.retrieval.encoder import TextEncoder
from ragengine.runtime.cancellation import Stop
from ragengine.validation import as_list, checked_text

Documents: TypeAlias = list[list[Document]]

_LISTS = "a list of Document for each question"
_LARGEST = float(np.finfo(np.float32).max)


def doc_scores(documents: Documents) -> FloatArray:
    """q(x)·d(z) float32 [Q, D], -inf where a question has fewer documents."""
    scores = np.full((len(documents), max(map(len, documents))), -np.inf, np.float32)
    for row, found in enumerate(documents):
        scores[row, : len(found)] = [document.score for document in found]
    return scores


def with_priors(documents: Documents) -> Documents:
    """The documents with p(z | x), the softmax of the scores over those of their question.

    Raises :class:`IndexFolderError` where a question has none: an approximate index whose searched lists
    are empty.
    """
    for question, found in enumerate(documents):
        if not found:
            raise IndexFolderError(
                f"The index found no passage for question {question}: the lists it searched are empty; build "
                "it again with a larger --recall, or another factory."
            )
    priors = np.exp(log_prior(doc_scores(documents))).tolist()
    return [
        [replace(document, prior=prior) for document, prior in zip(found, row, strict=False)]
        for found, row in zip(documents, priors, strict=True)
    ]


def prune(documents: Documents, threshold: float | None) -> tuple[Documents, Documents]:
    """Those of documents with priors to read, and those to leave out: a prior under ``threshold``.

    The best document of a question is always read.  The priors of those read are normalised anew.
    """
    if threshold is None:
        return documents, [[] for _ in documents]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise InputError(
            f"doc_pruning is {short_repr(threshold)}; it must be a prior probability, from 0 to 1."
        )
    kept, pruned = [], []
    for found in documents:
        limit = min(threshold, max(document.prior or 0.0 for document in found))
        kept.append([document for document in found if (document.prior or 0.0) >= limit])
        pruned.append([document for document in found if (document.prior or 0.0) < limit])
    return with_priors(kept), pruned


def given_documents(documents: Any, questions: int, *, single: bool) -> Documents | None:
    """The documents that a call brings, a list for each of its questions; None where it brings none.

    ``single`` is one list for one question.  Raises :class:`InputError` naming the first that cannot be used.
    """
    if documents is None:
        return None
    lists = [documents] if single else as_list(documents, "documents", _LISTS)
    if len(lists) != questions:
        raise InputError(f"documents has {len(lists)} lists for {questions} questions; give one each.")
    return [_checked_documents(given, question) for question, given in enumerate(lists)]


def scored(
    documents: Documents, vectors: FloatArray, passage_encoder: Callable[[], TextEncoder], stop: Stop
) -> Documents:
    """Documents the caller brings, a list a question, with scores: theirs, or q(x)·d(z).

    vectors are q(x), float32 [Q, E]; ``passage_encoder`` is called where scores are needed.
    """
    found = []
    for given, vector in zip(documents, vectors, strict=True):
        if given[0].score is None:
            pairs = [(document.title, document.text) for document in given]
            scores = (passage_encoder().encode_by_length(pairs, stop=stop) @ vector).tolist()
        else:
            scores = [float(document.score) for document in given if document.score is not None]
        found.append([replace(document, score=s) for document, s in zip(given, scores, strict=True)])
    return found


def _checked_documents(given: Any, question: int) -> list[Document]:
    documents = as_list(given, f"documents of question {question}", _LISTS)
    if not documents:
        raise InputError(f"documents of question {question} is empty; give at least one Document.")
    for place, document in enumerate(documents):
        what = f"Document {place} of question {question}"
        if not isinstance(document, Document):
            raise InputError(f"{what} is {type(document).__name__}; it must be a Document.")
        for name in ("title", "text", "id"):
            checked_text(f"The {name} of document {place} of question {question}", getattr(document, name))
        if not _is_score(document.score):
            raise InputError(
                f"{what} has the score {short_repr(document.score)}; it must be a number that float32 "
                "holds, -inf "
                "to leave the document out, or None."
            )
    if len({document.score is None for document in documents}) > 1:
        raise InputError(
            f"Some documents of question {question} have a score and some have none; give all or none."
        )
    if all(document.score == -math.inf for document in documents):
        raise InputError(f"Every document of question {question} has the score -inf; leave one in.")
    return documents


def _is_score(score: Any) -> bool:
    if score is None:
        return True
    if not isinstance(score, numbers.Real) or isinstance(score, bool):
        return False
    try:
        number = float(score)
    except OverflowError:  # an int beyond float
        return False
    return abs(number) <= _LARGEST or number == -math.inf
