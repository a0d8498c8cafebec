"""The calls of OpenAI's clients, which work unchanged: questions are prompts, or the user's last message."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ragengine import Document, GenerationOptions
from ragengine.errors import RagEngineError
from ragengine.generation.validation import check_streamable
from ragengine_serve.api.asking import (
    answer_task,
    answers,
    check_adaptive_reading,
    computed,
    documents_of,
    filter_of,
    questions_of,
)
from ragengine_serve.api.native import question_vectors
from ragengine_serve.api.openai_schemas import (
    UNSUPPORTED,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    Extra,
    Sampling,
)
from ragengine_serve.api.options import chosen_options
from ragengine_serve.api.schemas import ERRORS
from ragengine_serve.api.streaming import EventStream, Parts, StreamedQuestion, answer_parts, event, failed
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import JsonReply
from ragengine_serve.models.served_model import ServedModel
from ragengine_serve.scheduling.job import Task
from ragengine_serve.scheduling.works import EmbedPassagesWork, Reads
from ragengine_serve.state import ServerState, state_of

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)
State = Depends(state_of)
Kind = Literal["chat.completion", "text_completion"]


@router.get("/models")
async def models(state: ServerState = State) -> Response:
    """The models that are served."""
    found = [{"id": m.name, "object": "model", "created": 0, "owned_by": "ragengine"} for m in state.models]
    return JsonReply({"object": "list", "data": found})


@router.get("/models/{name}")
async def model(name: str, state: ServerState = State) -> Response:
    """One of the models that are served."""
    found = state.models.get(name)
    return JsonReply({"id": found.name, "object": "model", "created": 0, "owned_by": "ragengine"})


@router.post("/completions")
async def completions(request: Request, body: CompletionRequest, state: ServerState = State) -> Response:
    """Answer each prompt.  ``sources`` holds the documents of the answer; for several prompts a list each."""
    return await _complete(request, state, body, "text_completion", body.prompt, body.max_tokens)


@router.post("/chat/completions")
async def chat(request: Request, body: ChatRequest, state: ServerState = State) -> Response:
    """Answer the last message of the user; the model does not read those before it.

    ``sources`` holds the documents of the answer.
    """
    asked = [message for message in body.messages if message.role == "user"]
    if not asked:
        raise ApiError(
            400,
            "invalid_input",
            "No message has the role user; the last of them is the question.",
            "messages",
        )
    longest = body.max_completion_tokens or body.max_tokens
    return await _complete(request, state, body, "chat.completion", asked[-1].text, longest)


@router.post("/embeddings")
async def embeddings(request: Request, body: EmbeddingsRequest, state: ServerState = State) -> Response:
    """Vectors of questions, or with ``input_type`` "passage" of passages."""
    _refuse_unsupported(body.model_extra or {})
    texts = questions_of(body.input, state, "input")
    model = state.models.get(body.model)
    if body.input_type == "passage":
        task = Task(model, EmbedPassagesWork(model.engine, [Document("", text) for text in texts]))
        ((found, _),) = await computed(request, state, [task], None)
        vectors = found.tolist()
    else:
        vectors = await question_vectors(request, state, body.model, texts, None)
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": _base64(vector) if body.encoding_format == "base64" else vector,
        }
        for number, vector in enumerate(vectors)
    ]
    read = await _prompt_tokens(model, texts)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return JsonReply({"object": "list", "data": data, "model": model.name, "usage": usage})


async def _complete(
    request: Request,
    state: ServerState,
    body: Sampling,
    kind: Kind,
    prompt: str | list[str],
    max_tokens: int | None,
) -> Response:
    _refuse_unsupported(body.model_extra or {})
    model = state.models.get(body.model)
    extra = body.ragengine or Extra()
    options = chosen_options(_options(body, extra, model, max_tokens), model, state.settings)
    questions = questions_of(prompt, state, "prompt")
    own = None if extra.documents is None else documents_of(extra.documents, state)
    reads = Reads(own, extra.doc_pruning, filter_of(extra.filter))
    reply = _Reply(kind, model)
    check_adaptive_reading(extra.adaptive_reading, options, stream=bool(body.stream))
    if body.stream:
        if len(questions) > 1 or options.num_return_sequences > 1:
            raise ApiError(400, "invalid_input", "Several answers cannot stream; ask for one.", "stream")
        asked = StreamedQuestion(model, questions[0], options, reads, None)
        if _streams(options):
            parts = await answer_parts(request, state, asked)
        else:
            parts = await _at_once(request, state, asked)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(reply.events(request, parts, questions[0], usage))
    tasks = [
        answer_task(model, question, options, reads, adaptive_reading=extra.adaptive_reading)
        for question in questions
    ]
    found = await answers(request, state, tasks, None)
    return JsonReply(await reply.whole(questions, found))


async def _at_once(request: Request, state: ServerState, asked: StreamedQuestion) -> Parts:
    """The parts of an answer whose tokens are certain only at its end: all of its text is one of them."""
    task = answer_task(asked.model, asked.question, asked.options, asked.reads)
    (found,) = await answers(request, state, [task], asked.deadline_ms)

    async def parts() -> Parts:
        yield "documents", {"documents": found["documents"]}
        yield "token", {"text": found["answer"]}
        yield "final", found

    return parts()


class _Reply:
    """The responses to one request, whole or in chunks."""

    def __init__(self, kind: Kind, model: ServedModel) -> None:
        self._kind, self._model = kind, model
        self._chat = kind == "chat.completion"
        self._head = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model.name,
        }

    async def whole(self, questions: list[str], found: list[dict[str, Any]]) -> dict[str, Any]:
        """The response to a request that does not stream."""
        texts = [(alternative["answer"], answer) for answer in found for alternative in answer["hypotheses"]]
        choices = [
            {
                "index": number,
                **({"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}),
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
            for number, (text, answer) in enumerate(texts)
        ]
        sources = [answer["documents"] for answer in found]
        content: dict[str, Any] = {
            **self._head,
            "object": self._kind,
            "choices": choices,
            "usage": await self._usage(questions, found),
            "sources": sources[0] if len(sources) == 1 else sources,
        }
        return content

    async def events(
        self, request: Request, parts: Parts, question: str, usage: bool
    ) -> AsyncGenerator[bytes, None]:
        """The chunks of a stream: sources and role, pieces of text, the reason of the end."""
        try:
            async for name, content in parts:
                if name == "documents":
                    delta = {"role": "assistant", "content": ""} if self._chat else ""
                    yield event(None, self._chunk(delta, None, sources=content["documents"]))
                elif name == "token":
                    if text := content["text"]:
                        yield event(None, self._chunk({"content": text} if self._chat else text, None))
                else:
                    end: Any = {} if self._chat else ""
                    reason = _finish_reason(content)
                    yield event(None, self._chunk(end, reason, sources=content["documents"]))
                    if usage:
                        told = {"choices": [], "usage": await self._usage([question], [content])}
                        yield event(None, self._chunk("", None) | told)
            yield event(None, "[DONE]")
        except ApiError as error:
            yield event(None, {"error": failed(request, error)})
        finally:
            await parts.aclose()

    def _chunk(self, delta: Any, finish_reason: str | None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
        choice |= {"delta": delta} if self._chat else {"text": delta}
        kind = "chat.completion.chunk" if self._chat else self._kind
        return {**self._head, "object": kind, "choices": [choice], **more}

    async def _usage(self, questions: list[str], found: list[dict[str, Any]]) -> dict[str, int]:
        """Tokens of the questions and of the best answers."""
        read = await _prompt_tokens(self._model, questions)
        written = sum(len(answer["tokens"]) for answer in found)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _options(body: Sampling, extra: Extra, model: ServedModel, max_tokens: int | None) -> dict[str, Any]:
    """Generation options: OpenAI's names first, then those of ``ragengine``."""
    chosen: dict[str, Any] = {}
    if max_tokens is not None:
        chosen["max_new_tokens"] = max_tokens
    if body.seed is not None:
        chosen["seed"] = body.seed
    if body.temperature:
        chosen |= {"do_sample": True, "num_beams": 1, "temperature": body.temperature}
        chosen |= {} if body.top_p is None else {"top_p": body.top_p}
    if body.n is not None:
        chosen["num_return_sequences"] = body.n
        if not body.temperature:
            chosen["num_beams"] = max(body.n, model.engine.default_options.num_beams)
    reads = {"documents", "doc_pruning", "filter", "adaptive_reading"}
    given: dict[str, Any] = extra.model_dump(exclude=reads, exclude_none=True)
    return chosen | given


def _refuse_unsupported(given: dict[str, Any]) -> None:
    for name, nothing in UNSUPPORTED.items():
        value = given.get(name)
        if value is not False and value not in (None, nothing, [], {}, ""):
            raise ApiError(400, "unsupported", f"{name} is not supported here; leave it out.", name)


def _streams(options: GenerationOptions) -> bool:
    try:
        check_streamable(options)
    except RagEngineError:
        return False
    return True


def _finish_reason(answer: dict[str, Any]) -> str:
    return "length" if "max_length_reached" in answer["flags"] else "stop"


async def _prompt_tokens(model: ServedModel, questions: list[str]) -> int:
    """Tokens of questions, as the question encoder reads them.

    In a thread: a word of a million characters takes a second, in which every other connection would wait.
    """
    return sum(
        len(tokens.ids) for tokens in await asyncio.to_thread(model.engine.retriever.tokenize, questions)
    )


def _base64(vector: list[float]) -> str:
    """A vector as float32, little-endian."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
