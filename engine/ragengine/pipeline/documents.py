"""The documents of a call, found or given: their priors p(z | x), and which of them are read."""

import math
import numbers
import threading
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import Corpus
from ragengine.errors import IndexFolderError, InputError
from ragengine.generation.marginalization import log_prior
from ragengine.messages import short_repr
from ragengine.results import Document, FoundDocuments
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.runtime.cancellation import Stop
from ragengine.validation import as_list, checked_metadata, checked_text

Documents: TypeAlias = list[list[Document]]

_LISTS = "a list of Document for each question"
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class SelectedDocuments:
    """The documents of Q questions that the generator reads, and those that it does not.

    documents  those to read, with score and prior, a list a question
    pruned     those left out by ``doc_pruning``, with the prior they had
    log_prior  log p(z | x) of those to read, float32 [Q, D]; -inf where a question has fewer documents
    missing    for each question the shards that did not answer; empty: none is
    corpora    for each question where it was searched, None where that is not known; empty: for none
    """

    documents: Documents
    pruned: Documents
    log_prior: FloatArray
    corpora: tuple[Corpus | None, ...] = ()
    missing: tuple[tuple[str, ...], ...] = ()

    def missing_shards(self, question: int) -> tuple[str, ...]:
        """The shards that were not searched for a question."""
        return self.missing[question] if self.missing else ()

    def found(self, question: int) -> FoundDocuments:
        """The documents of a question, with the shards that were not searched."""
        return FoundDocuments(self.documents[question], self.missing_shards(question))

    def of_question(self, question: int, read: IntArray | None) -> tuple[list[Document], list[Document]]:
        """The documents that an answer took, and those left out.

        ``read`` are the places of those that were read, in that order; None: all that were selected.
        """
        found, pruned = self.documents[question], self.pruned[question]
        if read is None:
            return found, pruned
        places = read.tolist()
        ((kept,), _) = _with_priors([[found[place] for place in places]])
        return kept, pruned + [document for place, document in enumerate(found) if place not in places]


def select_documents(
    documents: Documents, doc_pruning: float | None, corpora: tuple[Corpus | None, ...] = ()
) -> SelectedDocuments:
    """Give scored documents their priors p(z | x), and leave out those whose prior is under ``doc_pruning``.

    The best document of a question always stays; the priors of those that stay are normalised anew, so the
    answer is exactly that of the model with these documents alone, and every distribution still sums to 1.
    Let m be the prior of those left out together, m < doc_pruning · their number.  Then, after any prefix,
    for any token,

        RAG-Token:     |p'(y_t | x, y_<t) - p(y_t | x, y_<t)| <= m
        RAG-Sequence:  |p'(y_<=t | x)     - p(y_<=t | x)|     <= m

    since p = (1 - m) p' + m r with r, the average under the documents left out, a probability: so
    p - p' = m (r - p'), and r - p' is between -1 and 1.  The sum over all tokens of |p' - p| is at most 2m
    for the same reason.  (RAG-Sequence's p(y_t | x, y_<t) alone has no such bound: a prefix can raise the
    posterior of a document left out.)

    Raises :class:`IndexFolderError` where a question has no document: an approximate index whose searched
    lists are empty.
    """
    for question, found in enumerate(documents):
        if not found:
            raise IndexFolderError(
                f"The index found no passage for question {question}: the lists it searched are empty; build "
                "it again with a larger --recall, or another factory."
            )
    documents, log_priors = _with_priors(documents)
    pruned: Documents = [[] for _ in documents]
    if doc_pruning is not None:
        kept = []
        for found, left_out in zip(documents, pruned, strict=True):
            limit = min(doc_pruning, max(document.prior or 0.0 for document in found))
            kept.append([document for document in found if (document.prior or 0.0) >= limit])
            left_out += [document for document in found if (document.prior or 0.0) < limit]
        if any(pruned):
            documents, log_priors = _with_priors(kept)
    return SelectedDocuments(documents, pruned, log_priors, corpora)


def checked_pruning(doc_pruning: Any) -> float | None:
    """``doc_pruning``, a prior probability or None."""
    if doc_pruning is None:
        return None
    if isinstance(doc_pruning, bool) or not isinstance(doc_pruning, int | float) or not 0 <= doc_pruning <= 1:
        raise InputError(
            f"doc_pruning is {short_repr(doc_pruning)}; it must be a prior probability, from 0 to 1."
        )
    return doc_pruning


def given_documents(documents: Any, questions: int, *, single: bool) -> Documents | None:
    """The documents given to a call, a list for each of its questions; None where none are given.

    ``single`` is one list for one question.  Raises :class:`InputError` naming the first that cannot be used.
    """
    if documents is None:
        return None
    lists = [documents] if single else as_list(documents, "documents", _LISTS)
    if len(lists) != questions:
        raise InputError(f"documents has {len(lists)} lists for {questions} questions; give one each.")
    return [_checked_documents(given, question) for question, given in enumerate(lists)]


def checked_filter(filter: Any, own: Documents | None) -> PassageFilter | None:
    """The filter of a call, or None where it leaves nothing out.

    Raises :class:`InputError` for what is no filter, and beside documents of the caller's own.
    """
    checked = PassageFilter.of(filter)
    if checked is not None and own is not None:
        raise InputError(
            "filter chooses among the passages of the index, and documents were given; leave one out."
        )
    return checked


class PassageScorer:
    """Scores given documents with the bundle's passage encoder, which is loaded when it is first needed.

    Safe to use from several threads.
    """

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        self._bundle = bundle
        self._threads = threads
        self._encoder: TextEncoder | None = None
        self._loading = threading.Lock()

    def scored(self, documents: Documents, vectors: FloatArray, stop: Stop) -> Documents:
        """Given documents, a list a question, with scores: their own, or q(x)·d(z).

        ``vectors`` are q(x), float32 [Q, E].
        """
        found = []
        for given, vector in zip(documents, vectors, strict=True):
            if given[0].score is None:
                scores = (self.encode(given, stop) @ vector).tolist()
            else:
                scores = [float(document.score) for document in given if document.score is not None]
            found.append([replace(document, score=s) for document, s in zip(given, scores, strict=True)])
        return found

    def encode(self, documents: list[Document], stop: Stop) -> FloatArray:
        """d(z) of documents, float32 [N, E]."""
        pairs = [(document.title, document.text) for document in documents]
        return self._passage_encoder().encode_by_length(pairs, stop=stop)

    def _passage_encoder(self) -> TextEncoder:
        spec = self._bundle.manifest.passage_encoder
        if spec is None:
            raise InputError(
                "Documents have no scores and this bundle has no passage encoder; "
                "give each a score, or export with --context-encoder."
            )
        with self._loading:
            if self._encoder is None:
                self._bundle.check_unchanged()  # else the vectors would be another model's
                self._encoder = TextEncoder.load(self._bundle, spec, device="cpu", threads=self._threads)
            return self._encoder


def _with_priors(documents: Documents) -> tuple[Documents, FloatArray]:
    """The documents with p(z | x), the softmax of the scores over those of their question; and its logarithm.

    float32 [Q, D], -inf where a question has fewer documents.
    """
    scores = np.full((len(documents), max(map(len, documents))), -np.inf, np.float32)
    for row, found in enumerate(documents):
        scores[row, : len(found)] = [document.score for document in found]
    log_priors = log_prior(scores)
    weighed = [
        [replace(document, prior=prior) for document, prior in zip(found, row, strict=False)]
        for found, row in zip(documents, np.exp(log_priors).tolist(), strict=True)
    ]
    return weighed, log_priors


def _checked_documents(given: Any, question: int) -> list[Document]:
    documents = as_list(given, f"documents of question {question}", _LISTS)
    if not documents:
        raise InputError(f"documents of question {question} is empty; give at least one Document.")
    for place, document in enumerate(documents):
        what = f"Document {place} of question {question}"
        if not isinstance(document, Document):
            raise InputError(
                f"{what} is {type(document).__name__}; it must be a Document, as "
                "ragengine.Document(title=..., text=...) makes it."
            )
        for name in ("title", "text", "id"):
            checked_text(f"The {name} of document {place} of question {question}", getattr(document, name))
        checked_metadata(f"The metadata of document {place} of question {question}", document.metadata)
        if not _is_score(document.score):
            raise InputError(
                f"{what} has the score {short_repr(document.score)}; it must be a number that float32 "
                "holds, -inf to leave the document out, or None."
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
