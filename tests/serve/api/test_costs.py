"""What is wrong a hundred thousand times in one body costs the server no more than once."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ragengine_serve.api.openai_schemas import ChatRequest, CompletionRequest, EmbeddingsRequest
from ragengine_serve.api.schemas import AnswerRequest, ClassifyRequest, EmbedRequest
from tests.support.served import QUESTION, Served

MANY = 100_000
Q: dict[str, Any] = {"question": "a"}
M: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
WRONG: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (AnswerRequest, {"question": [3] * MANY}),
    (AnswerRequest, Q | {"documents": [3] * MANY}),
    (AnswerRequest, Q | {"documents": [{"text": "a", "b": 1}] * MANY}),
    (AnswerRequest, Q | {"documents": [[3] * MANY]}),
    (AnswerRequest, Q | {"filter": {"a": [{}] * MANY}}),
    (AnswerRequest, Q | {"bad_words_ids": [["a"]] * MANY}),
    (AnswerRequest, Q | {"bad_words_ids": [["a"] * MANY]}),
    (AnswerRequest, Q | {"suppress_tokens": ["a"] * MANY}),
    (AnswerRequest, Q | {"eos_token_id": ["a"] * MANY}),
    (ClassifyRequest, Q | {"labels": [3] * MANY}),
    (EmbedRequest, {"passages": [3] * MANY}),
    (EmbeddingsRequest, {"input": [3] * MANY}),
    (CompletionRequest, {"prompt": [3] * MANY}),
    (ChatRequest, {"messages": [3] * MANY}),
    (ChatRequest, {"messages": [{"role": "user", "content": [3] * MANY}]}),
    (ChatRequest, M | {"ragengine": {"documents": [3] * MANY}}),
]


@pytest.mark.parametrize(("kind", "body"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_list_is_one_error(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        kind.model_validate(body)
    assert error.value.error_count() < 20


def test_an_object_has_no_more_names_than_anybody_needs(server: Served) -> None:
    names = {f"k{number}": [] for number in range(1001)}
    for body in (Q | names, Q | {"filter": names}, Q | {"documents": [{"text": "a", "metadata": names}]}):
        reply = server.post("/v1/answer", body)
        assert (reply.status, reply.content["error"]["type"]) == (400, "invalid_json")
        assert "names, and at most 1000 are read" in reply.content["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suppress_tokens", [3] * 1001),
        ("bad_words_ids", [[3]] * 501),
        ("bad_words_ids", [[3] * 1000]),
        ("filter", {"a": [str(n) for n in range(501)], "b": [str(n) for n in range(500)]}),
    ],
)
def test_what_each_step_or_search_looks_through_is_bounded(server: Served, name: str, value: Any) -> None:
    tensor = {"name": "question", "datatype": "BYTES", "shape": [1], "data": [QUESTION]}
    for path, body in (
        ("/v1/answer", Q | {name: value}),
        ("/v1/chat/completions", M | {"ragengine": {name: value}}),
        ("/v2/models/worldfacts/infer", {"inputs": [tensor], "parameters": {name: value}}),
    ):
        reply = server.post(path, body)
        told = reply.content if path.startswith("/v2") else reply.content["error"]
        assert (reply.status, told["type"], told["field"]) == (400, "over_limit", name), path


def test_a_long_filter_is_cut_in_its_message(server: Served) -> None:
    body = Q | {"filter": {"city": [str(number) for number in range(1000)]}}
    message = server.post("/v1/answer", body).content["error"]["message"]
    assert message.startswith("No passage matches the filter city='0' or '1' or '10'")
    assert " or 992 more; " in message
