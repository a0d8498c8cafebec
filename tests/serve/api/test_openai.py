"""The real `openai` package works unchanged."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.served import QUESTION, Served

openai = pytest.importorskip("openai", reason="the extra serve-test is not installed")


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as found:
        yield found


def test_models_are_listed(client: "openai.OpenAI") -> None:
    assert [model.id for model in client.models.list()] == ["worldfacts"]
    assert client.models.retrieve("worldfacts").owned_by == "ragengine"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_a_chat_asks_the_last_message_of_the_user(client: "openai.OpenAI", server: Served) -> None:
    completion = client.chat.completions.create(
        model="worldfacts",
        messages=[
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "What is the capital of Peru?"},
            {"role": "assistant", "content": "Lima"},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
    )
    answer = server.state.models.get(None).engine.generate(QUESTION)
    assert completion.choices[0].message.content == answer.text
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(answer.tokens)
    assert completion.usage.prompt_tokens > 3
    assert [source["id"] for source in completion.model_extra["sources"]] == [d.id for d in answer.documents]


@pytest.mark.parametrize("beams", [1, 4])
def test_a_chat_streams_the_same_text(client: "openai.OpenAI", server: Served, beams: int) -> None:
    """With beams the text comes whole: only what is certain is sent."""
    stream = client.chat.completions.create(
        model="worldfacts",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ragengine": {"num_beams": beams, "n_docs": 3}},
    )
    chunks = list(stream)
    answer = server.state.models.get(None).engine.generate(QUESTION, num_beams=beams, n_docs=3)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in texts) == answer.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks[0].model_extra["sources"]) == 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(answer.tokens)


def test_completions_answer_each_prompt(client: "openai.OpenAI", server: Served) -> None:
    completion = client.completions.create(
        model="worldfacts", prompt=[QUESTION, "What is the capital of Peru?"]
    )
    engine = server.state.models.get(None).engine
    expected = [engine.generate(QUESTION).text, engine.generate("What is the capital of Peru?").text]
    assert [choice.text for choice in completion.choices] == [text.lstrip() for text in expected]
    assert len(completion.model_extra["sources"]) == 2


def test_names_of_openai_become_options(client: "openai.OpenAI", server: Served) -> None:
    settings = {"model": "worldfacts", "prompt": QUESTION}
    cut = client.completions.create(**settings, max_tokens=1)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 1
    assert len(client.completions.create(**settings, n=3).choices) == 3
    drawn = [client.completions.create(**settings, temperature=2.0, seed=7, n=2) for _ in range(2)]
    texts = [[choice.text for choice in one.choices] for one in drawn]
    engine = server.state.models.get(None).engine
    expected = engine.generate(
        QUESTION, do_sample=True, num_beams=1, temperature=2.0, seed=7, num_return_sequences=2
    )
    assert texts[0] == texts[1] == [text.lstrip() for text in expected.texts]


def test_a_completion_streams(client: "openai.OpenAI", server: Served) -> None:
    stream = client.completions.create(model="worldfacts", prompt=QUESTION, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Reykjavik"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: "openai.OpenAI", server: Served, encoding: str) -> None:
    found = client.embeddings.create(model="worldfacts", input=[QUESTION, "x"], encoding_format=encoding)
    prepared = server.state.models.get(None).engine.prepare([QUESTION, "x"], 0)
    vectors = [entry.embedding for entry in found.data]
    if encoding == "base64":
        import base64

        vectors = [np.frombuffer(base64.b64decode(v), "<f4").tolist() for v in vectors]
    np.testing.assert_allclose(vectors, [p.encoded.vectors[0] for p in prepared], atol=1e-5)
    passage = client.embeddings.create(model="worldfacts", input="x", extra_body={"input_type": "passage"})
    assert passage.data[0].embedding != vectors[1]


def test_errors_are_those_of_the_package(client: "openai.OpenAI") -> None:
    message = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt'"):
        client.chat.completions.create(model="gpt", messages=message)
    with pytest.raises(openai.BadRequestError, match="stop is not supported") as error:
        client.chat.completions.create(model="worldfacts", messages=message, stop=["x"])
    assert error.value.param == "stop"
    with pytest.raises(openai.BadRequestError, match="role user"):
        client.chat.completions.create(model="worldfacts", messages=[{"role": "system", "content": "x"}])
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="worldfacts", messages=[])


@pytest.mark.parametrize(
    "settings", [{"adaptive_reading": True}, {"doc_pruning": 0.05}, {"prompt_lookup_num_tokens": 3}]
)
def test_fewer_documents_and_steps(
    client: "openai.OpenAI", server: Served, settings: dict[str, object]
) -> None:
    """The answer is that of `generate` with the same settings, streamed too where that can be."""
    extra: dict[str, object] = {"num_beams": 1, "marginalize": "token", **settings}
    asked: dict[str, object] = {"model": "worldfacts", "messages": [{"role": "user", "content": QUESTION}]}
    completion = client.chat.completions.create(**asked, extra_body={"ragengine": extra})
    answer = server.state.models.get(None).engine.generate(QUESTION, **extra)
    assert completion.choices[0].message.content == answer.text
    assert [source["id"] for source in completion.model_extra["sources"]] == [d.id for d in answer.documents]

    def streamed(extra: dict[str, object]) -> str:
        stream = client.chat.completions.create(**asked, stream=True, extra_body={"ragengine": extra})
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    if "adaptive_reading" in settings:
        assert len(answer.documents) < 5, "all documents were read: this question shows nothing"
        for refused in (
            lambda: streamed(extra),
            lambda: client.chat.completions.create(
                **asked, extra_body={"ragengine": extra | {"num_beams": 2}}
            ),
        ):
            with pytest.raises(openai.BadRequestError, match="adaptive_reading"):
                refused()
    else:
        assert streamed(extra) == answer.text


NOTHING = {
    "logprobs": False,
    "top_logprobs": 0,
    "tool_choice": "none",
    "stop": "",
    "tools": [],
    "echo": False,
}


def test_fields_that_ask_for_nothing_are_taken(server: Served) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], **NOTHING}
    assert server.post("/v1/chat/completions", body).status == 200
    for asked in ({"logprobs": True}, {"logprobs": 0}, {"top_logprobs": 1}, {"tool_choice": "auto"}):
        reply = server.post("/v1/chat/completions", body | asked)
        assert (reply.status, reply.content["error"]["type"]) == (400, "unsupported")


def test_documents_are_as_many_as_the_server_allows(server: Served) -> None:
    """Under OpenAI's names, too, a request costs no more than the limits say."""
    most = server.state.settings.max_n_docs
    for path, asked in (("/v1/completions", {"prompt": ["a", "b"]}), ("/v1/answer", {"question": "a"})):
        for count in (0, most + 1):
            given = {"documents": [{"text": "a", "score": 1.0}] * count}
            body = asked | (given if path == "/v1/answer" else {"ragengine": given})
            reply = server.post(path, body)
            assert (reply.status, reply.content["error"]["type"]) == (400, "over_limit")
            assert f"There are {count} documents" in reply.content["error"]["message"]


def test_a_long_word_holds_up_nobody(server: Served) -> None:
    """Its tokens are counted for `usage` in a thread: the loop of all connections goes on."""
    engine, loop_threads = server.state.models.get(None).engine, set()
    tokenize = engine.retriever.tokenize

    def noted(texts: list[str]) -> object:
        loop_threads.add(threading.current_thread().name)
        return tokenize(texts)

    engine.retriever.tokenize = noted
    try:
        assert server.post("/v1/embeddings", {"input": "x" * 1000}).status == 200
        for streaming in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            body = {"prompt": "x" * 1000, "max_tokens": 1, **streaming}
            assert server.post("/v1/completions", body).status == 200
    finally:
        del engine.retriever.tokenize
    assert loop_threads
    assert all(name.startswith("asyncio_") for name in loop_threads)
