"""From a checked request to results: the tasks, the wait, and what metrics and log are told."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from ragengine import Answer, Document, GenerationOptions
from ragengine.errors import RagEngineError
from ragengine.generation.adaptive import check_adaptive
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.validation import checked_text
from ragengine_serve.api.schemas import GivenDocument, Reading
from ragengine_serve.errors import ApiError
from ragengine_serve.http.observing import note
from ragengine_serve.http.replies import api_error
from ragengine_serve.http.waiting import results
from ragengine_serve.models.served_model import ServedModel
from ragengine_serve.scheduling.job import Task, Ticket
from ragengine_serve.scheduling.works import AnswerWork, Reads
from ragengine_serve.state import ServerState

_MOST_VALUES = 1000  # of a filter


def deadline_of(state: ServerState, deadline_ms: int | None) -> float:
    """The event loop's time after which a request wants no answer any more."""
    return asyncio.get_running_loop().time() + (deadline_ms or state.settings.default_deadline_ms) / 1000


def questions_of(question: str | Sequence[str], state: ServerState, field: str = "question") -> list[str]:
    """The questions of a request as a list.

    Raises:
        ApiError: 400, too many, or one that is no text.
    """
    questions = [question] if isinstance(question, str) else list(question)
    if len(questions) > state.settings.max_questions:
        raise ApiError(
            400,
            "over_limit",
            f"{field} has {len(questions)} entries, and this server takes at most "
            f"{state.settings.max_questions} in a request; split it.",
            field,
        )
    try:
        for number, text in enumerate(questions):
            checked_text(f"Question {number}", text)
    except RagEngineError as error:
        raise api_error(error, (field,)) from error
    return questions


def filter_of(given: Any) -> PassageFilter | None:
    """The filter of a request.

    Raises:
        ApiError: 400, it is none, or has more values than are looked for while others wait.
    """
    try:
        found = PassageFilter.of(given)
    except RagEngineError as error:
        raise api_error(error, ("filter",)) from error
    count = 0 if found is None else sum(len(values) for _, values in found.fields)
    if count > _MOST_VALUES:
        raise ApiError(
            400,
            "over_limit",
            f"filter has {count} values, and this server takes at most {_MOST_VALUES}; give fewer.",
            "filter",
        )
    return found


def reads_of(body: Reading, count: int, state: ServerState) -> list[Reads]:
    """What a request says of the documents of each of its ``count`` questions.

    Raises:
        ApiError: 400, given ones do not fit the questions, are too many, or there is a filter beside them.
    """
    passages = filter_of(body.filter)
    given: Any = body.documents
    if given is None:
        return [Reads(None, body.doc_pruning, passages)] * count
    if passages is not None:
        raise ApiError(400, "invalid_input", "Give either documents or a filter.", "filter")
    nested = bool(given) and isinstance(given[0], list)
    single = isinstance(body.question, str)
    if nested == single or (not single and len(given) != count):
        shape = "one list of documents" if single else f"{count} lists of documents, one for each question"
        raise ApiError(
            400, "invalid_input", f"documents does not fit the question; give {shape}.", "documents"
        )
    lists: list[list[GivenDocument]] = [given] if single else given
    return [Reads(documents_of(one, state), body.doc_pruning) for one in lists]


def documents_of(given: Sequence[GivenDocument], state: ServerState) -> tuple[Document, ...]:
    """The documents that a request gives for one question.

    Raises:
        ApiError: 400, they are too many or none, or some have a score and some have none.
    """
    if not 0 < len(given) <= state.settings.max_n_docs:
        raise ApiError(
            400,
            "over_limit",
            f"There are {len(given)} documents for a question; give 1 to {state.settings.max_n_docs}.",
            "documents",
        )
    if len({document.score is None for document in given}) > 1:
        raise ApiError(
            400,
            "invalid_input",
            "Some documents have a score and some have none; give all or none.",
            "documents",
        )
    return tuple(document.document() for document in given)


def check_adaptive_reading(wanted: bool, options: GenerationOptions, *, stream: bool) -> None:
    """Refuse ``adaptive_reading`` where it cannot be; nothing where it is not ``wanted``.

    Raises:
        ApiError: 400, for a stream, and for searches that it cannot follow.
    """
    if not wanted:
        return
    if stream:
        message = "A stream sends its documents first; leave out adaptive_reading, or stream."
        raise ApiError(400, "invalid_input", message, "adaptive_reading")
    try:
        check_adaptive(options)
    except RagEngineError as error:
        raise api_error(error, ("adaptive_reading",)) from error


def answer_task(
    model: ServedModel,
    question: str,
    options: GenerationOptions,
    reads: Reads,
    *,
    adaptive_reading: bool = False,
) -> Task:
    """The task of an answer; equal questions with equal settings share one, but for draws without a seed."""
    work = AnswerWork(model.engine, options, reads, adaptive_reading)
    drawn = options.do_sample and options.seed is None
    key = None if drawn else (
        "answer", model.name, model.version, question, options, reads, adaptive_reading
    )  # fmt: skip
    return Task(model, work, question, reads.searched(options.n_docs), key)


async def computed(
    request: Request, state: ServerState, tasks: Sequence[Task], deadline_ms: int | None
) -> list[tuple[Any, float]]:
    """The results of tasks, each with the milliseconds that it was queued.

    Raises:
        ApiError: the queue is full, the deadline has passed, or the engine refused.
    """
    deadline = deadline_of(state, deadline_ms)
    tickets = state.scheduler.submit(tasks)
    noted(request, tasks)
    try:
        found = await results(tickets, deadline, request.receive)
    except RagEngineError as error:
        raise api_error(error, ("documents", "filter", "answer", "labels", "question")) from error
    return list(zip(found, waits(state, tickets), strict=True))


async def answers(
    request: Request,
    state: ServerState,
    tasks: Sequence[Task],
    deadline_ms: int | None,
    *,
    abstain: bool = False,
) -> list[dict[str, Any]]:
    """The answers of tasks as ``/v1/answer`` gives them; with ``abstain`` without text where it is not sure.

    Raises:
        ApiError: as :func:`computed`; 400, an answer has no confidence to abstain by.
    """
    found = await computed(request, state, tasks, deadline_ms)
    if abstain:
        try:
            found = [(answer.abstain(), queued) for answer, queued in found]
        except RagEngineError as error:
            raise api_error(error, ("abstain",)) from error
    model = tasks[0].model
    assert model is not None  # a question is a model's
    return [answer_json(request, state, model, answer, queued) for answer, queued in found]


def answer_json(
    request: Request, state: ServerState, model: ServedModel, answer: Answer, queued_ms: float
) -> dict[str, Any]:
    """An answer as JSON; metrics, traces and log learn of it."""
    content = answer.to_dict()
    content["timings_ms"] = {"queue": queued_ms, **answer.timings_ms}
    state.metrics.stages(answer.timings_ms)
    state.tracing.stages(content["timings_ms"])
    state.metrics.answered(model.name, len(answer.tokens), len(answer.documents))
    state.metrics.without_shards(model.name, answer.missing_shards)
    note(
        request.scope,
        timings_ms={stage: round(ms, 2) for stage, ms in content["timings_ms"].items()},
        tokens=len(answer.tokens),
    )
    return content


def noted(request: Request, tasks: Sequence[Task]) -> None:
    """Leave the questions for the log."""
    texts = [task.question for task in tasks if task.question is not None]
    model = tasks[0].model
    note(request.scope, **({} if model is None else {"model": model.name}), questions=texts)


def waits(state: ServerState, tickets: Sequence[Ticket]) -> list[float]:
    """How long tickets' jobs were queued, which the metrics learn, too."""
    for ticket in tickets:
        state.metrics.stages({"queue": ticket.waited_ms})
    return [ticket.waited_ms for ticket in tickets]
