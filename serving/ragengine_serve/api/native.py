"""The server's own calls: answer, retrieve, score, classify, embed."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ragengine import Document
from ragengine.errors import RagEngineError
from ragengine.generation.validation import check_streamable
from ragengine_serve.api.asking import (
    answer_task,
    answers,
    check_adaptive_reading,
    computed,
    filter_of,
    questions_of,
    reads_of,
)
from ragengine_serve.api.options import chosen_options
from ragengine_serve.api.schemas import (
    ERRORS,
    AnswerReply,
    AnswerRequest,
    ClassifyReply,
    ClassifyRequest,
    EmbedReply,
    EmbedRequest,
    RetrieveReply,
    RetrieveRequest,
    ScoreReply,
    ScoreRequest,
)
from ragengine_serve.api.streaming import EventStream, StreamedQuestion, answer_parts, event_lines
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import JsonReply, api_error
from ragengine_serve.scheduling.job import Task
from ragengine_serve.scheduling.works import (
    ClassifyWork,
    EmbedPassagesWork,
    EmbedQuestionWork,
    Reads,
    RetrieveWork,
    ScoreWork,
)
from ragengine_serve.state import ServerState, state_of

router = APIRouter(prefix="/v1", tags=["ragengine"], responses=ERRORS)
State = Depends(state_of)


@router.post(
    "/answer",
    response_model=AnswerReply | list[AnswerReply],
    responses={200: {"content": {"text/event-stream": {}}, "description": "The answer, or a list of them."}},
)
async def answer(request: Request, body: AnswerRequest, state: ServerState = State) -> Response:
    """Answer a question, or each of a list; with ``stream`` token by token.

    The events of a stream are ``documents`` (``{"documents": [...]}``, with priors), ``token``
    (``{"id", "text", "log_prob", "posterior"}``; the texts together are the answer), ``final`` (the whole
    object) and ``error``.  Only what is certain is sent: searches that cannot stream answer 400.
    """
    model = state.models.get(body.model)
    options = chosen_options(body.model_dump(), model, state.settings)
    questions = questions_of(body.question, state)
    reads = reads_of(body, len(questions), state)
    check_adaptive_reading(body.adaptive_reading, options, stream=body.stream)
    if body.stream:
        if body.abstain:
            raise ApiError(
                400, "invalid_input", "A stream cannot abstain: its text is sent before its end.", "abstain"
            )
        if len(questions) > 1 or not isinstance(body.question, str):
            raise ApiError(400, "invalid_input", "A list of questions cannot stream; ask one.", "stream")
        try:
            check_streamable(options, model.engine.default_options)
        except RagEngineError as error:
            raise api_error(error, ("num_beams", "search", "do_sample")) from error
        asked = StreamedQuestion(model, questions[0], options, reads[0], body.deadline_ms)
        return EventStream(event_lines(request, await answer_parts(request, state, asked)))
    tasks = [
        answer_task(model, question, options, read, adaptive_reading=body.adaptive_reading)
        for question, read in zip(questions, reads, strict=True)
    ]
    found = await answers(request, state, tasks, body.deadline_ms, abstain=body.abstain)
    return _one_or_many(body.question, found)


@router.post("/retrieve", response_model=RetrieveReply | list[RetrieveReply])
async def retrieve(request: Request, body: RetrieveRequest, state: ServerState = State) -> Response:
    """The documents of a question with their priors p(z | x), best first."""
    model = state.models.get(body.model)
    options = chosen_options({"n_docs": body.n_docs}, model, state.settings)
    questions = questions_of(body.question, state)
    n_docs, passages = options.n_docs, filter_of(body.filter)
    work = RetrieveWork(model.engine, n_docs, passages)
    searched = Reads(filter=passages).searched(n_docs)
    tasks = [
        Task(model, work, text, searched, ("retrieve", model.name, model.version, text, n_docs, passages))
        for text in questions
    ]
    found = []
    for text, ((documents, timings), queued) in zip(
        questions, await computed(request, state, tasks, body.deadline_ms), strict=True
    ):
        state.metrics.stages(timings)
        state.metrics.without_shards(model.name, documents.missing_shards)
        state.tracing.stages({"queue": queued, **timings})
        found.append(
            {
                "question": text,
                "documents": [document.to_dict() for document in documents],
                "timings_ms": {"queue": queued, **timings},
                "missing_shards": list(documents.missing_shards),
            }
        )
    return _one_or_many(body.question, found)


@router.post("/score", response_model=ScoreReply | list[ScoreReply])
async def score(request: Request, body: ScoreRequest, state: ServerState = State) -> Response:
    """log p(y | x) of an answer to a question, or of one answer to each of a list."""
    model = state.models.get(body.model)
    options = chosen_options(body.model_dump(), model, state.settings)
    questions = questions_of(body.question, state)
    reads = reads_of(body, len(questions), state)
    scored = _answers(body, len(questions), state)
    excluded = getattr(body, "exclude_bos_score", None)
    tasks = [
        _reading_task(
            model,
            question,
            read,
            options.n_docs,
            ScoreWork(model.engine, given, options, read, body.with_bos, excluded),
        )
        for question, read, given in zip(questions, reads, scored, strict=True)
    ]
    found = await computed(request, state, tasks, body.deadline_ms)
    rows = [
        {"question": question, "answer": given, "log_prob": log_prob}
        for question, given, (log_prob, _) in zip(questions, scored, found, strict=True)
    ]
    return _one_or_many(body.question, rows)


@router.post("/classify", response_model=ClassifyReply)
async def classify(request: Request, body: ClassifyRequest, state: ServerState = State) -> Response:
    """p(label | x) over labels, as the paper classifies claims."""
    model = state.models.get(body.model)
    options = chosen_options(body.model_dump(), model, state.settings)
    (question,) = questions_of(body.question, state)
    questions_of(body.labels, state, "labels")
    (read,) = reads_of(body, 1, state)
    work = ClassifyWork(model.engine, body.labels, options, read, body.with_bos)
    task = _reading_task(model, question, read, options.n_docs, work)
    ((probabilities, _),) = await computed(request, state, [task], body.deadline_ms)
    return JsonReply({"question": question, "probabilities": probabilities})


@router.post("/embed", response_model=EmbedReply)
async def embed(request: Request, body: EmbedRequest, state: ServerState = State) -> Response:
    """The vectors of questions, q(x), or of passages, d(z): their inner product is a passage's score."""
    if (body.question is None) == (body.passages is None):
        raise ApiError(400, "invalid_input", "Give either question or passages.", "question")
    model = state.models.get(body.model)
    if body.question is not None:
        vectors = await question_vectors(
            request, state, body.model, questions_of(body.question, state), body.deadline_ms
        )
    else:
        passages = body.passages or []
        questions_of([passage.text for passage in passages], state, "passages")
        documents = [Document(passage.title, passage.text) for passage in passages]
        task = Task(model, EmbedPassagesWork(model.engine, documents))
        ((found, _),) = await computed(request, state, [task], body.deadline_ms)
        vectors = found.tolist()
    return JsonReply({"vectors": vectors, "dimension": len(vectors[0])})


async def question_vectors(
    request: Request,
    state: ServerState,
    model_name: str | None,
    questions: list[str],
    deadline_ms: int | None,
) -> list[list[float]]:
    """q(x) of questions."""
    model = state.models.get(model_name)
    work = EmbedQuestionWork()
    tasks = [
        Task(model, work, text, 0, ("embed", model.name, model.bundle_fingerprint, text))
        for text in questions
    ]
    return [vector.tolist() for vector, _ in await computed(request, state, tasks, deadline_ms)]


def _reading_task(model: Any, question: str, read: Reads, n_docs: int, work: Any) -> Task:
    """A task that reads documents and is not shared."""
    return Task(model, work, question, read.searched(n_docs))


def _answers(body: ScoreRequest, count: int, state: ServerState) -> list[Any]:
    """The answers to score, one for each question."""
    single = isinstance(body.question, str)
    given = [body.answer] if single else body.answer
    if isinstance(given, str) or len(given) != count:
        raise ApiError(400, "invalid_input", f"answer must be a list of {count} answers, one each.", "answer")
    for one in given:
        ids = isinstance(one, list) and all(type(token) is int and 0 <= token < 1 << 31 for token in one)
        if not (isinstance(one, str) or ids):
            raise ApiError(400, "invalid_input", "An answer must be a text or a list of token ids.", "answer")
    questions_of([one for one in given if isinstance(one, str)], state, "answer")
    return list(given)


def _one_or_many(question: str | list[str], found: list[dict[str, Any]]) -> JsonReply:
    """One object for one question, a list for a list."""
    return JsonReply(found[0] if isinstance(question, str) else found)
