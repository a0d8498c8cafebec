"""Searching with an object of the caller's own, such as the client of a vector database."""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.results import Document
from ragengine.retrieval.candidates import check_question_vectors
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.passage_filter import Filter, PassageFilter
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.validation import as_list, checked_metadata, checked_text

_LARGEST = float(np.finfo(np.float32).max)


@runtime_checkable
class DocumentSearcher(Protocol):
    """A search of your own, which :meth:`RagEngine.load` takes instead of an index folder.

    The engine encodes questions and calls :meth:`search` with their vectors, from every thread that asks.
    What it searches must hold vectors of the encoder that the bundle belongs to; nothing can check that.
    """

    def search(self, question_vectors: FloatArray, n_docs: int) -> Sequence[Sequence[Document]]:
        """Find documents for Q questions.

        Args:
            question_vectors: q(x), float32 [Q, E].
            n_docs: how many documents are wanted for each question.

        Returns:
            For each question at least one and at most ``n_docs`` documents, best first.  Each has a finite
            ``score``, q(x)·d(z): the prior p(z | x) is the softmax of the scores.
        """
        ...


class CustomIndex:
    """A :class:`DocumentSearcher` in the place of a :class:`PassageIndex`; what it finds is checked."""

    def __init__(self, searcher: DocumentSearcher, dimension: int) -> None:
        """Raises :class:`InputError` where ``searcher`` has no method ``search``."""
        self._searcher = searcher
        self._dimension = dimension
        self._kind = type(searcher).__name__
        if not isinstance(searcher, DocumentSearcher):
            raise InputError(
                f"index is {self._kind}; it must be the path of an index folder, or an object with a method "
                "search(question_vectors, n_docs)."
            )

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"search of {self._kind}"

    @property
    def corpus(self) -> None:
        """Nothing is known of what it searches."""

    def check_belongs_to(self, bundle: Bundle) -> None:
        """Nothing: the encoder of its vectors is not known."""

    def search_documents(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> list[list[Document]]:
        """The documents for question vectors, float32 [Q, E], best first.

        Raises :class:`InputError` where the searcher returns something else than :class:`DocumentSearcher`
        says, and for ``nprobe``, ``rerank_width`` or ``filter``, which are for index folders.
        """
        check_whole("n_docs", n_docs)
        check_question_vectors(vectors, self._dimension)
        if nprobe is not None or rerank_width is not None:
            raise InputError(
                f"nprobe and rerank_width are settings of an index folder; {self._kind} has none of them."
            )
        if PassageFilter.of(filter) is not None:
            raise InputError(
                f"filter chooses among the passages of an index folder; {self._kind} searches without one."
            )
        lists = as_list(
            self._searcher.search(vectors, n_docs),
            f"The result of {self._kind}.search",
            "a list of Document for each question",
        )
        if len(lists) != len(vectors):
            raise InputError(
                f"{self._kind}.search returned {len(lists)} lists of documents for {len(vectors)} questions; "
                "return one for each."
            )
        return [self._checked(found, question, n_docs) for question, found in enumerate(lists)]

    def close(self) -> None:
        """Nothing: the searcher is the caller's to close."""

    def _checked(self, found: Any, question: int, n_docs: int) -> list[Document]:
        """What was found for one question, as documents with scores in descending order."""
        where = f"{self._kind}.search, question {question}"
        given = as_list(found, f"The result of {where}", "a list of Document")
        if not 1 <= len(given) <= n_docs:
            raise InputError(f"{where}: it returned {len(given)} documents; return 1 to {n_docs} (n_docs).")
        documents = [_checked_document(one, f"{where}, document {row}") for row, one in enumerate(given)]
        scores = [document.score or 0.0 for document in documents]
        for row, (score, following) in enumerate(itertools.pairwise(scores)):
            if following > score:
                raise InputError(
                    f"{where}: the score {following:.6g} of document {row + 1} is above the {score:.6g} of "
                    f"document {row}; return the best first."
                )
        return documents


class NoIndex:
    """In the place of an index where every question comes with its documents."""

    name = "engine without an index"
    """What messages call it."""

    @property
    def corpus(self) -> None:
        """There is none."""

    def check_belongs_to(self, bundle: Bundle) -> None:
        """Nothing."""

    def search_documents(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | PassageFilter | None = None,
    ) -> list[list[Document]]:
        """Raises :class:`InputError`: there is nothing to search."""
        raise no_index()

    def close(self) -> None:
        """Nothing."""


def no_index() -> InputError:
    """The error for a search where nothing can be searched."""
    return InputError(
        "The engine was loaded without an index, so it finds no documents; give documents with the "
        "question, or load the engine with an index."
    )


AnyIndex: TypeAlias = SearchedIndex | CustomIndex | NoIndex
"""What a retriever searches."""


def _checked_document(document: Any, what: str) -> Document:
    if not isinstance(document, Document):
        raise InputError(f"{what} is {type(document).__name__}; it must be a Document.")
    for name in ("title", "text", "id"):
        checked_text(f"{what}: its {name}", getattr(document, name))
    score = _checked_score(document.score, what)
    metadata = checked_metadata(f"{what}: its metadata", document.metadata)
    return Document(document.title, document.text, document.id, score, metadata=metadata)


def _checked_score(score: Any, what: str) -> float:
    if isinstance(score, numbers.Real) and not isinstance(score, bool):
        try:
            number = float(score)
        except OverflowError:  # an int beyond float
            number = math.inf
        if abs(number) <= _LARGEST:
            return number
    raise InputError(f"{what} has the score {short_repr(score)}; it must be a finite float32 number.")
