"""Ask an engine the questions, and measure each answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.evaluation.long_answers import rouge_scorer
from ragengine.evaluation.metrics import exact_match, f1, label_match, regex_match
from ragengine.evaluation.questions import Question
from ragengine.evaluation.retrieval import retrieval_values
from ragengine.options import OPTION_NAMES, checked_kind
from ragengine.results import Answer, Document
from ragengine.validation import checked_labels

Task: TypeAlias = Literal["qa", "generation", "classification"]
Progress: TypeAlias = Callable[[int], None]
_ALWAYS_AT = 5  # recall@5 is there whatever n_docs is


@dataclass(frozen=True)
class Prediction:
    """What an engine said: a text, its p(y | x) (a label's: among the labels), and the documents read."""

    text: str
    probability: float
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Measured:
    """A question, what the engine said, and the figures of it by name; unanswerable ones have none."""

    question: Question
    prediction: Prediction
    values: dict[str, float]


def evaluate(
    engine: RagEngine,
    questions: Sequence[Question],
    *,
    batch_size: int = 8,
    progress: Progress = lambda done: None,
    **options: Any,
) -> dict[str, float]:
    """Answer every question and measure: means over the questions, and ``n``, how many can be answered.

    ``recall@5`` is the share of questions with an answer's words in one of the first five documents;
    ``passage_recall@5``, where the file names the right passage, of those with that passage among them.
    """
    measured = measure(engine, questions, batch_size=batch_size, progress=progress, **options)
    answerable = [one.values for one in measured if one.question.answerable]
    return {"n": float(len(answerable))} | means(answerable)


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the questions that have it, in the order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def measure(
    engine: RagEngine,
    questions: Sequence[Question],
    *,
    task: Task = "qa",
    labels: Sequence[str] = (),
    ks: Sequence[int] = (),
    likelihood: bool = False,
    answer_prefix: str | None = None,
    batch_size: int = 8,
    progress: Progress = lambda done: None,
    **options: Any,
) -> list[Measured]:
    """The figures of each question, in their order; ``docs/evaluation.md`` defines them.

    ``task`` adds ``rouge_l`` for generation (BLEU is of all questions together: `report`) and
    ``label_accuracy`` for classification among ``labels`` (default: all first answers).  ``ks`` are the k of
    recall and precision (default: 1, 5 and n_docs).  ``likelihood`` adds ``log_likelihood``, log p(first
    answer | x) in nats, at the price of reading the documents again; ``answer_prefix`` is put before the
    answer for it (default: a space if most of the model's own answers begin with one).  ``options`` are
    those of `RagEngine.generate`.

    Raises :class:`InputError` for a k over n_docs, :class:`OptionsError` for wrong options, both before the
    first question, and what the engine raises.
    """
    chosen = checked_kind(options.get("options") or engine.default_options)
    n_docs = chosen.replace(**{name: options[name] for name in OPTION_NAMES if name in options}).n_docs
    ks = checked_ks(ks, n_docs)
    score = _answer_measures(task)
    predictions: Iterator[Prediction]
    if task == "classification":
        labels = checked_labels(labels or first_answers(questions))
        predictions = _classified(engine, questions, labels, n_docs, options)
    else:
        predictions = _answered(engine, questions, batch_size, options)
    measured = []
    for question, prediction in zip(questions, predictions, strict=True):
        values = score(question, prediction) | retrieval_values(question, prediction.documents, ks, n_docs)
        measured.append(Measured(question, prediction, values if question.answerable else {}))
        progress(1)
    if likelihood:
        _add_likelihood(engine, measured, answer_prefix, batch_size, options)
    return measured


def first_answers(questions: Sequence[Question]) -> list[str]:
    """Every first answer once, in order: the labels of a classification file."""
    return sorted({question.answers[0] for question in questions if question.answerable})


def _answer_measures(task: Task) -> Callable[[Question, Prediction], dict[str, float]]:
    rouge_l = rouge_scorer() if task == "generation" else None

    def measures(question: Question, prediction: Prediction) -> dict[str, float]:
        text, answers = prediction.text, question.answers
        if not answers:
            return {}
        if question.regex:  # there are no words to count
            return {"exact_match": float(regex_match(text, answers))}
        values = {"exact_match": float(exact_match(text, answers)), "f1": f1(text, answers)}
        if rouge_l is not None:
            values["rouge_l"] = rouge_l(text, answers)
        if task == "classification":
            values["label_accuracy"] = float(label_match(text, answers))
        return values

    return measures


def _answered(
    engine: RagEngine, questions: Sequence[Question], batch_size: int, options: dict[str, Any]
) -> Iterator[Prediction]:
    for start in range(0, len(questions), batch_size):
        batch = [question.question for question in questions[start : start + batch_size]]
        yield from map(_prediction, engine.generate(batch, **options))


def _prediction(answer: Answer) -> Prediction:
    return Prediction(answer.text, _probability(answer.log_prob), answer.documents)


def _probability(log_prob: float) -> float:
    return float(np.exp(min(log_prob, 0.0)))  # rounding can leave a log-probability over 0


def _classified(
    engine: RagEngine,
    questions: Sequence[Question],
    labels: Sequence[str],
    n_docs: int,
    options: dict[str, Any],
) -> Iterator[Prediction]:
    for question in questions:
        documents = engine.retrieve(question.question, n_docs=n_docs)
        shares = engine.classify(question.question, labels, documents=documents, **options)
        label = max(shares, key=shares.__getitem__)
        yield Prediction(label, shares[label], tuple(documents))


def _add_likelihood(
    engine: RagEngine,
    measured: Sequence[Measured],
    prefix: str | None,
    batch_size: int,
    options: dict[str, Any],
) -> None:
    """Put ``log_likelihood`` into the values of the answerable questions."""
    if prefix is None:
        spaced = sum(one.prediction.text.startswith(" ") for one in measured)
        prefix = " " if 2 * spaced > len(measured) else ""
    rows = [one for one in measured if one.question.worded]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        scores = engine.score(
            [one.question.question for one in batch],
            [prefix + one.question.answers[0].removeprefix(prefix) for one in batch],
            documents=[one.prediction.documents for one in batch],
            **options,
        )
        for one, score in zip(batch, scores, strict=True):
            one.values["log_likelihood"] = score


def checked_ks(ks: Sequence[int], n_docs: int) -> list[int]:
    """The k of recall, by default 1 and n_docs, and 5.  Raises :class:`InputError` for one over n_docs."""
    if wrong := [k for k in ks if not 1 <= k <= n_docs]:
        raise InputError(f"k is {wrong[0]} and must be 1 to n_docs, which is {n_docs}; raise n_docs.")
    return sorted({*(ks or (1, n_docs)), _ALWAYS_AT})
