"""The documents of a call: brought by the caller or found, with p(z | x), and which of them are read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.errors import InputError
from ragengine.generation.mixture import log_prior
from ragengine.results import Document
from ragengine.retrieval.encoder import TextEncoder

FloatArray: TypeAlias = NDArray[np.float32]
Documents: TypeAlias = list[list[Document]]


def doc_scores(documents: Documents) -> FloatArray:
    """q(x)·d(z) float32 [Q, D], -inf where a question has fewer documents."""
    scores = np.full((len(documents), max(map(len, documents))), -np.inf, np.float32)
    for row, found in enumerate(documents):
        scores[row, : len(found)] = [document.score for document in found]
    return scores


def with_priors(documents: Documents) -> Documents:
    """The documents with p(z | x), the softmax of the scores over those of their question."""
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
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise InputError(f"doc_pruning is {threshold!r}; it must be a prior probability, from 0 to 1.")
    kept, pruned = [], []
    for found in documents:
        limit = min(threshold, max(document.prior or 0.0 for document in found))
        kept.append([document for document in found if (document.prior or 0.0) >= limit])
        pruned.append([document for document in found if (document.prior or 0.0) < limit])
    return with_priors(kept), pruned


def own_documents(
    documents: Sequence[Any], vectors: FloatArray, passage_encoder: Callable[[], TextEncoder]
) -> Documents:
    """Documents the caller brings, a list a question, with scores: theirs, or q(x)·d(z).

    vectors are q(x), float32 [Q, E]; ``passage_encoder`` is called where scores are needed.
    """
    if len(documents) != len(vectors):
        raise InputError(f"documents has {len(documents)} lists for {len(vectors)} questions; give one each.")
    read = []
    for given, vector in zip(documents, vectors, strict=True):
        if isinstance(given, Document) or not given or not all(isinstance(d, Document) for d in given):
            raise InputError("documents must be a non-empty list of Document for each question.")
        for document in given:
            if not (isinstance(document.title, str) and isinstance(document.text, str)):
                kinds = f"{type(document.title).__name__} and {type(document.text).__name__}"
                raise InputError(f"A document's title and text are {kinds}; they must be str.")
        scores = [document.score for document in given]
        if None in scores:
            if any(score is not None for score in scores):
                raise InputError("Some documents have a score and some have none; give all or none.")
            passages = passage_encoder().encode_passages([(d.title, d.text) for d in given])
            scores = (passages @ vector).tolist()
        try:
            numbers = [float(score) for score in scores]
        except (TypeError, ValueError) as reason:
            raise InputError(f"A document's score is not a number ({reason}); give floats.") from reason
        read.append([replace(document, score=s) for document, s in zip(given, numbers, strict=True)])
    return read
