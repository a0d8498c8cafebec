"""Questions that were encoded and searched before they are answered, so that many can share both stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ragengine.confidence.corpus import Corpus
from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.results import Document
from ragengine.retrieval.encoder import EncodedQuestions
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.validation import as_list, checked_question, checked_questions


@dataclass(frozen=True, eq=False)
class PreparedQuestion:
    """What :meth:`RagEngine.prepare` made of a question; the engine's other calls take it in its place.

    question   the text
    n_docs     how many documents were searched for; 0: none, they are given, or searched for with a filter
    documents  those found, best first, with their scores; fewer where the index holds fewer
    encoded    q(x), and the question as the generator reads it
    corpus     what was searched, where that is known
    missing_shards  those that did not answer, and were allowed not to
    """

    question: str
    n_docs: int
    documents: tuple[Document, ...]
    encoded: EncodedQuestions
    corpus: Corpus | None = None
    missing_shards: tuple[str, ...] = ()


Question: TypeAlias = str | PreparedQuestion


@dataclass(frozen=True, eq=False)
class Asked:
    """The questions of a call, checked.

    texts     what was asked
    prepared  the same questions, where they came prepared
    single    whether one was given, not a list
    """

    texts: list[str]
    prepared: list[PreparedQuestion] | None
    single: bool

    @classmethod
    def one(cls, question: Any) -> "Asked":
        """The question of a call that takes one."""
        if isinstance(question, PreparedQuestion):
            return cls([question.question], [question], single=True)
        return cls([checked_question(question)], None, single=True)

    @classmethod
    def some(cls, question: Any) -> "Asked":
        """One question or several."""
        if isinstance(question, str | PreparedQuestion):
            return cls.one(question)
        given = as_list(question, "A question", "a str, a PreparedQuestion, or a list of them")
        prepared = [one for one in given if isinstance(one, PreparedQuestion)]
        if not prepared:
            return cls(checked_questions(given), None, single=False)
        if len(prepared) < len(given):
            raise InputError(
                f"{len(prepared)} of {len(given)} questions are prepared; prepare all of them or none."
            )
        return cls([one.question for one in prepared], prepared, single=False)

    def encoded(self) -> EncodedQuestions | None:
        """The prepared questions together: with the longest time that one of them took in each stage."""
        if self.prepared is None:
            return None
        parts = [one.encoded for one in self.prepared]
        stages = {stage: None for part in parts for stage in part.timings_ms}
        return EncodedQuestions(
            vectors=np.concatenate([part.vectors for part in parts]),
            texts=[text for part in parts for text in part.texts],
            truncated=[cut for part in parts for cut in part.truncated],
            timings_ms={stage: max(part.timings_ms.get(stage, 0.0) for part in parts) for stage in stages},
        )

    def corpora(self) -> tuple[Corpus | None, ...]:
        """What each of the prepared questions was searched in."""
        return tuple(one.corpus for one in self.prepared or ())

    def missing(self) -> tuple[tuple[str, ...], ...]:
        """The shards that did not answer, for each of the prepared questions."""
        return tuple(one.missing_shards for one in self.prepared or ())

    def found(self, n_docs: int, filter: PassageFilter | None) -> list[list[Document]] | None:
        """The documents that were found when the questions were prepared; None: they are to be searched.

        Raises:
            InputError: other than ``n_docs`` were searched for, or some without the ``filter``.
        """
        if self.prepared is None:
            return None
        if filter is not None:
            if any(one.n_docs for one in self.prepared):
                raise InputError(
                    "The question was prepared with documents that were found without the filter; prepare it "
                    "with n_docs=0."
                )
            return None
        for one in self.prepared:
            if one.n_docs != n_docs:
                raise InputError(
                    f"The question was prepared with {one.n_docs} documents and is asked with "
                    f"n_docs={n_docs}; prepare it with as many, or give documents."
                )
        return [list(one.documents) for one in self.prepared]


def checked_counts(n_docs: Any, questions: int) -> list[int]:
    """How many documents to search for, for each of ``questions``: one number for all, or one each."""
    counts: Sequence[Any] = (
        [n_docs] * questions if isinstance(n_docs, int) else as_list(n_docs, "n_docs", "a number, or a list")
    )
    if len(counts) != questions:
        raise InputError(f"n_docs has {len(counts)} numbers for {questions} questions; give one each.")
    for count in counts:
        if type(count) is not int or count < 0:
            raise InputError(
                f"n_docs is {short_repr(count)}; it must be a whole number of at least 0, which searches for "
                "no document."
            )
    return list(counts)
