"""Answers to questions with known answers: what a calibration is fitted to and judged by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import DoubleArray
from ragengine.confidence.corpus import spread_rows
from ragengine.confidence.features import features
from ragengine.confidence.rarity import Rarity
from ragengine.engine import RagEngine
from ragengine.evaluation.metrics import exact_match, regex_match
from ragengine.evaluation.questions import Question
from ragengine.grounding.words import distinct_words
from ragengine.options import GenerationOptions
from ragengine.pipeline.assessment import with_candidates
from ragengine.results import Answer
from ragengine.runtime.progress import Report

_BATCH = 8
_PASSAGES = 20_000  # whose words are counted


@dataclass(frozen=True, eq=False)
class Observations:
    """Q answers, in the order of their questions.

    answers     with the two best hypotheses, where the search has them
    answerable  whether some document answers the question, bool [Q]
    right       whether the answer is right, bool [Q]
    """

    answers: tuple[Answer, ...]
    answerable: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @property
    def questions(self) -> list[str]:
        """The questions' texts."""
        return [answer.question for answer in self.answers]

    def of(self, rows: NDArray[np.int64]) -> "Observations":
        """The answers at ``rows``, in that order."""
        return Observations(tuple(self.answers[row] for row in rows), self.answerable[rows], self.right[rows])

    def features(self, rarity: Rarity) -> DoubleArray:
        """The answers' features, float64 [Q, F]."""
        return np.array([features(answer, rarity) for answer in self.answers])


def observe(
    engine: RagEngine, questions: Sequence[Question], options: GenerationOptions, report: Report
) -> Observations:
    """Answer the questions; an answer is right if it matches exactly, as ``ragengine eval`` counts it."""
    options = with_candidates(options)
    answers: list[Answer] = []
    for start in range(0, len(questions), _BATCH):
        batch = [question.question for question in questions[start : start + _BATCH]]
        answers += engine.generate(batch, options=options)
        report(len(answers), len(questions))
    return Observations(
        tuple(answers),
        np.array([question.answerable for question in questions]),
        np.array([_is_right(*pair) for pair in zip(answers, questions, strict=True)]),
    )


def _is_right(answer: Answer, question: Question) -> bool:
    matches = regex_match if question.regex else exact_match
    return question.answerable and matches(answer.text, question.answers)


def count_words(engine: RagEngine) -> tuple[Counter[str], int]:
    """In how many passages of a sample of the index each folded word is, and how many were read."""
    counts: Counter[str] = Counter()
    index = engine.retriever.index
    rows = spread_rows(index.count, _PASSAGES)
    for passage in index.passages(rows):
        counts.update(distinct_words(passage.title) | distinct_words(passage.text))
    return counts, len(rows)
