"""Ask an engine questions with known answers, and measure what it answers."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.evaluation.closed_book import closed_book as answered_alone
from ragengine.evaluation.definitions import Metrics, answer_measures
from ragengine.evaluation.long_answers import check_installed
from ragengine.evaluation.measured import Measured, Prediction, Task, probability
from ragengine.evaluation.metrics import label_match, regex_match
from ragengine.evaluation.predictions import KeptPredictions, identity
from ragengine.evaluation.questions import Question, read_questions
from ragengine.evaluation.report import Evaluation, Source, report
from ragengine.evaluation.retrieval import retrieval_values
from ragengine.evaluation.statistics import Resampling
from ragengine.messages import short_repr
from ragengine.options import OPTION_NAMES, GenerationOptions, check_names, checked_kind
from ragengine.results import Answer
from ragengine.retrieval.passage_filter import Filter, PassageFilter
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.runtime.progress import Report, silent
from ragengine.validation import check_whole_number, checked_labels

_ALWAYS_AT = 5  # recall@5 is there whatever n_docs is


def evaluate(
    engine: RagEngine,
    questions: str | Path | Sequence[Question],
    *,
    task: Task = "qa",
    metrics: Metrics = "squad",
    labels: Sequence[str] = (),
    ks: Sequence[int] = (),
    likelihood: bool = False,
    answer_prefix: str | None = None,
    resamples: int = 1000,
    resampling_seed: int = 0,
    batch_size: int = 8,
    abstain: bool = False,
    closed_book: bool = False,
    predictions: str | Path | None = None,
    progress: Report | None = None,
    filter: Filter | None = None,
    doc_pruning: float | None = None,
    adaptive_reading: bool = False,
    options: GenerationOptions | None = None,
    **changes: Any,
) -> Evaluation:
    """Measure answers and retrieval on questions with known answers, as `ragengine eval` does.

    ``evaluate(engine, file).compare(evaluate(other, file))`` is what ``--compare`` and ``--compare-set`` do:
    paired tests of two systems.

    Args:
        engine: the model and its index.
        questions: a JSONL file as docs/guides/evaluation.md describes it, or the questions themselves.
        task: ``generation`` adds ROUGE-L and BLEU of long answers (extra ``eval``), ``classification`` adds
            the accuracy of the most probable label.
        metrics: whose definition of exact match, F1 and ROUGE-L: ``squad``, ``kilt``, or ``dpr`` (extra
            ``eval``).
        labels: the class labels, for ``classification`` alone; by default the first answers.
        ks: the k of recall and precision, at most n_docs; by default 1, 5 and n_docs.
        likelihood: also measure log p(first answer | question) in nats, which reads the documents again.
        answer_prefix: put before the answer for ``likelihood``; by default a space if most of the model's
            own answers begin with one.
        resamples: samples drawn for 95 % intervals and tests, at most a million; 0 for none of these.
        resampling_seed: the seed of these samples.
        batch_size: questions answered together.
        abstain: give no text where the confidence is low; such an answer is wrong.
        closed_book: the generator answers from the question alone, without documents.
        predictions: a folder that keeps answers under the fingerprint of what decides them (bundle, index,
            options); answers that it has are not computed again.
        progress: called as ``progress(done, total)`` after each question.
        filter: search only passages whose metadata has these values, as in :meth:`RagEngine.generate`.
        doc_pruning: leave out documents whose prior is under this, as in :meth:`RagEngine.generate`.
        adaptive_reading: read documents only while they could change a token of greedy RAG-Token, as in
            :meth:`RagEngine.generate`.
        options: generation options, by default those of the model.
        **changes: single generation options by name.

    Returns:
        Every figure, and each question with its answer.

    Raises:
        PassagesError: the file cannot be read as questions.
        OptionsError: a generation option is wrong.
        InputError: another argument is wrong.
        DependencyError: ``generation`` or ``dpr`` without the extra ``eval``.
    """
    if task not in get_args(Task):
        raise InputError(f"task is {short_repr(task)}; it must be one of {', '.join(get_args(Task))}.")
    if metrics not in get_args(Metrics):
        raise InputError(
            f"metrics is {short_repr(metrics)}; it must be one of {', '.join(get_args(Metrics))}."
        )
    check_whole_number("batch_size", batch_size)
    if labels and task != "classification":
        raise InputError('labels are given, which only task="classification" uses; leave them out.')
    if abstain and task == "classification":
        raise InputError("abstain is True, and labels have no confidence; leave it out.")
    if closed_book and (abstain or likelihood or task == "classification"):
        raise InputError("closed_book is True; it goes with neither abstain, likelihood nor labels.")
    if (closed_book or task == "classification") and (adaptive_reading or doc_pruning is not None):
        raise InputError(
            "doc_pruning or adaptive_reading is given, which only answers with documents use; leave it out."
        )
    if answer_prefix is not None and not likelihood:
        raise InputError("answer_prefix is given, which only likelihood=True uses; leave it out.")
    check_names(changes)
    resampling = Resampling(resamples, seed=resampling_seed)
    settings: dict[str, Any] = changes if options is None else {"options": options, **changes}
    asked = read_questions(Path(questions)) if isinstance(questions, str | Path) else questions
    measured = measure(
        engine,
        asked,
        task=task,
        metrics=metrics,
        labels=labels,
        ks=ks,
        likelihood=likelihood,
        answer_prefix=answer_prefix,
        batch_size=batch_size,
        abstain=abstain,
        closed_book=closed_book,
        predictions=predictions,
        progress=progress,
        filter=filter,
        doc_pruning=doc_pruning,
        adaptive_reading=adaptive_reading,
        **settings,
    )
    different = changes if options is None else options.to_dict() | changes
    source = Source(
        bundle=str(engine.bundle.path),
        index=_index_path(engine),
        questions=str(questions) if isinstance(questions, str | Path) else None,
        options=different,
        filter=None if (passages := PassageFilter.of(filter)) is None else passages.to_dict(),
        closed_book=closed_book,
    )
    return report(
        measured,
        task=task,
        metrics=metrics,
        missing_passages=_missing_passages(engine, asked),
        resampling=resampling,
        source=source,
    )


def _missing_passages(engine: RagEngine, questions: Sequence[Question]) -> list[str]:
    """The passage ids of the questions that the index does not have; none if it is not an index folder."""
    wanted = dict.fromkeys(id for question in questions for id in sorted(question.gold_ids))
    with engine.retriever.borrow_index() as index:
        return index.missing_ids(wanted) if isinstance(index, SearchedIndex) else []


def _index_path(engine: RagEngine) -> str | None:
    try:
        return str(engine.retriever.index.path)
    except InputError:  # the engine searches an object of the caller's own
        return None


def measure(
    engine: RagEngine,
    questions: Sequence[Question],
    *,
    task: Task = "qa",
    metrics: Metrics = "squad",
    labels: Sequence[str] = (),
    ks: Sequence[int] = (),
    likelihood: bool = False,
    answer_prefix: str | None = None,
    batch_size: int = 8,
    abstain: bool = False,
    closed_book: bool = False,
    predictions: str | Path | None = None,
    progress: Report | None = None,
    filter: Filter | None = None,
    doc_pruning: float | None = None,
    adaptive_reading: bool = False,
    **options: Any,
) -> list[Measured]:
    """Answer the questions and measure each answer: :func:`evaluate` without its summary.

    Args:
        **options: those of :meth:`ragengine.RagEngine.generate`; the others are those of :func:`evaluate`.

    Returns:
        Each question with its answer and figures, in their order.

    Raises:
        InputError: a k is above n_docs, or labels are wrong; said before the first question.
        OptionsError: options are wrong; said before the first question.
    """
    tell = progress or silent
    chosen = checked_kind(options.get("options") or engine.default_options)
    chosen = chosen.replace(**{name: options[name] for name in OPTION_NAMES if name in options})
    n_docs = chosen.n_docs
    ks = checked_ks(ks, n_docs)
    score = _answer_measures(task, metrics)
    answer: Callable[[Sequence[Question]], Iterator[Prediction]]
    if task == "classification":
        labels = checked_labels(labels or first_answers(questions))
        answer = partial(_classified, engine, labels=labels, n_docs=n_docs, filter=filter, options=options)
    elif closed_book:
        answer = partial(answered_alone, engine, batch_size=batch_size, options=chosen)
    else:
        reading: dict[str, Any] = {
            "filter": filter,
            "doc_pruning": doc_pruning,
            "adaptive_reading": adaptive_reading,
        }
        engine.generate([], **options, **reading)  # what is wrong with them is said before the first question
        answer = partial(
            _answered, engine, batch_size=batch_size, abstain=abstain, options={**reading, **options}
        )
    answers = answer(questions)
    if predictions is not None:
        kind = {"labels": list(labels), "abstain": abstain, "closed_book": closed_book}
        kind |= {"filter": None if (only := PassageFilter.of(filter)) is None else only.to_dict()}
        if doc_pruning is not None or adaptive_reading:  # others keep the names that they have had
            kind |= {"doc_pruning": doc_pruning, "adaptive_reading": adaptive_reading}
        kept = KeptPredictions(Path(predictions), identity(engine, chosen.to_dict() | kind))
        answers = kept.answered(questions, answer)
    measured = []
    for question, prediction in zip(questions, answers, strict=True):
        values = score(question, prediction)
        if not closed_book:
            values |= retrieval_values(question, prediction.documents, ks, n_docs)
        measured.append(Measured(question, prediction, values if question.answerable else {}))
        tell(len(measured), len(questions))
    if likelihood:
        _add_likelihood(engine, measured, answer_prefix, batch_size, options)
    return measured


def first_answers(questions: Sequence[Question]) -> list[str]:
    """Every first answer once, in alphabetical order: the labels of a classification file."""
    return sorted({question.answers[0] for question in questions if question.answers})


def _answer_measures(task: Task, metrics: Metrics) -> Callable[[Question, Prediction], dict[str, float]]:
    if task == "generation":
        check_installed()  # what is needed after hours of answering
    measures_of = answer_measures(metrics, long_answers=task == "generation")

    def measures(question: Question, prediction: Prediction) -> dict[str, float]:
        text, answers = prediction.text, question.answers
        if not answers:
            return {}
        if question.regex:  # there are no words to count
            return {"exact_match": float(regex_match(text, answers))}
        values = measures_of(text, answers)
        if task == "classification":
            values["label_accuracy"] = float(label_match(text, answers))
        return values

    return measures


def _answered(
    engine: RagEngine, questions: Sequence[Question], batch_size: int, abstain: bool, options: dict[str, Any]
) -> Iterator[Prediction]:
    for start in range(0, len(questions), batch_size):
        batch = [question.question for question in questions[start : start + batch_size]]
        yield from map(_prediction, engine.generate(batch, abstain=abstain, **options))


def _prediction(answer: Answer) -> Prediction:
    return Prediction(
        answer.text,
        probability(answer.log_prob),
        answer.documents,
        answer.raw_text,
        answer.confidence,
        answer.answerability,
        "low_confidence" in answer.flags,
    )


def _classified(
    engine: RagEngine,
    questions: Sequence[Question],
    labels: Sequence[str],
    n_docs: int,
    filter: Filter | None,
    options: dict[str, Any],
) -> Iterator[Prediction]:
    for question in questions:
        documents = engine.retrieve(question.question, n_docs=n_docs, filter=filter)
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
        spaced = sum(one.prediction.raw_text.startswith(" ") for one in measured)
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
    """The k of recall: ``ks``, by default 1 and n_docs, and always 5.

    Raises:
        InputError: one of ``ks`` is not from 1 to n_docs.
    """
    if wrong := [k for k in ks if not 1 <= k <= n_docs]:
        raise InputError(f"k is {wrong[0]} and must be 1 to n_docs, which is {n_docs}; raise n_docs.")
    return sorted({*(ks or (1, n_docs)), _ALWAYS_AT})
