"""The typed client, synchronous and asynchronous, gives the same results."""

import asyncio
import inspect
from typing import Any

import pytest

from ragengine import Document
from ragengine.errors import InputError
from ragengine_serve import AsyncClient, Client, ServedAnswer, ServedToken, ServerError
from tests.support.served import QUESTION, Served, free_port

OWN = [
    Document("Report", "Ada wrote it.", score=1.0, metadata={"owner": "ada"}),
    Document("Other", "No.", score=0.5),
]


def test_a_client_answers_as_the_engine(server: Served) -> None:
    engine = server.state.models.get(None).engine
    with Client(server.url) as client:
        assert client.ready()
        found, expected = client.answer(QUESTION, num_beams=2, num_return_sequences=2), engine.generate(
            QUESTION, num_beams=2, num_return_sequences=2
        )  # fmt: skip
        assert (found.text, found.question, found.flags) == (expected.text, QUESTION, expected.flags)
        assert found.documents == expected.documents
        assert [h.text for h in found.hypotheses] == list(expected.texts)
        assert [t.text for t in found.tokens] == list(expected.tokens)
        assert [a.question for a in client.answer(["a", "b"])] == ["a", "b"]
        assert client.answer("Who?", documents=OWN).text == engine.generate("Who?", documents=OWN).text
        (read, _) = client.answer(["x"], documents=[OWN])[0].documents
        assert (read.title, read.metadata) == ("Report", {"owner": "ada"})
        assert client.retrieve(QUESTION, 2) == engine.retrieve(QUESTION, 2)
        assert [len(found) for found in client.retrieve(["a", "b"], n_docs=3)] == [3, 3]
        assert client.score(QUESTION, " Lima") == pytest.approx(engine.score(QUESTION, " Lima"), abs=1e-5)
        assert client.classify(QUESTION, ["a", "b"]).keys() == {"a", "b"}
        assert len(client.embed([QUESTION])[0]) == len(client.embed(passages=OWN)[1])
        assert client.info()["models"][0]["name"] == "worldfacts"


def test_a_client_streams(server: Served) -> None:
    with Client(server.url) as client:
        events = list(client.stream(QUESTION, num_beams=1))
    documents, *tokens, answer = events
    assert isinstance(documents, tuple)
    assert len(documents) == 5
    assert all(isinstance(token, ServedToken) for token in tokens)
    assert isinstance(answer, ServedAnswer)
    assert "".join(t.text for t in tokens if isinstance(t, ServedToken)) == answer.text


def test_errors_are_typed(server: Served) -> None:
    with Client(server.url) as client:
        with pytest.raises(ServerError, match="num_beams is 0") as error:
            client.answer(QUESTION, num_beams=0)
        assert (error.value.status, error.value.type, error.value.field) == (
            400,
            "invalid_options",
            "num_beams",
        )
        with pytest.raises(ServerError, match="cannot stream") as error:
            next(iter(client.stream(QUESTION, num_beams=2)))
        assert error.value.status == 400
        with pytest.raises(InputError, match="must be a str"):
            client.answer(3)
        with pytest.raises(ServerError) as error:
            client.swap_index("x")
        assert error.value.status == 404
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.ready()
        with pytest.raises(ServerError, match=r"The server at \S+ cannot be reached: ") as error:
            client.info()
        assert error.value.status == 0


def test_both_clients_have_the_same_methods() -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        found = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in found if not name.startswith("__")}

    assert methods(Client) == methods(AsyncClient)


def test_the_asynchronous_client_does_the_same(server: Served) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(server.url) as client:
            assert await client.ready()
            assert (await client.info())["models"]
            answers = await asyncio.gather(*(client.answer(QUESTION) for _ in range(4)))
            events = [event async for event in client.stream(QUESTION, num_beams=1)]
            with pytest.raises(ServerError):
                await client.swap_index("x")
            rest = (
                await client.retrieve(QUESTION, 1),
                await client.score(QUESTION, "x"),
                await client.classify(QUESTION, ["a", "b"]),
                await client.embed([QUESTION]),
            )
            return answers, events, rest

    answers, events, rest = asyncio.run(ask())
    with Client(server.url) as client:
        assert {answer.text for answer in answers} == {client.answer(QUESTION).text}
        assert events[-1].text == client.answer(QUESTION, num_beams=1).text
        expected = (
            client.retrieve(QUESTION, 1),
            client.score(QUESTION, "x"),
            client.classify(QUESTION, ["a", "b"]),
            client.embed([QUESTION]),
        )
        assert rest == expected


def test_the_client_needs_no_server_package() -> None:
    """Who only asks installs neither fastapi nor onnxruntime."""
    import subprocess
    import sys

    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fastapi", "uvicorn", "prometheus_client", "onnxruntime", "faiss"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from ragengine_serve import AsyncClient, Client, ServedAnswer
print(Client("http://127.0.0.1:9").ready())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
