"""Filters in requests: each question is answered from what matches, alone or beside others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragengine import Document
from ragengine_serve.configuration.settings import ModelFolders
from tests.support.paths import GOLDEN
from tests.support.served import Served, running

QUESTION = "where is Quito?"
MODEL = ModelFolders("golden", GOLDEN / "bundle_v4", GOLDEN / "index_v2")
OPTIONS: dict[str, Any] = {"num_beams": 1, "max_new_tokens": 6, "n_docs": 3}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with running(models=(MODEL,)) as served:
        yield served


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["id"] for document in documents]


def test_every_call_takes_a_filter(server: Served) -> None:
    engine = server.state.models.get(None).engine
    own: list[Document] = engine.retrieve(QUESTION, 3, filter={"half": 1})
    asked = {"question": QUESTION, "filter": {"half": 1}}
    found = server.post("/v1/retrieve", asked | {"n_docs": 3}).content["documents"]
    assert ids(found) == [document.id for document in own]
    assert [d["metadata"] for d in found] == [dict(document.metadata) for document in own]
    answer = server.post("/v1/answer", asked | OPTIONS).content
    expected = engine.generate(QUESTION, documents=own, **OPTIONS)
    assert answer["answer"] == expected.text
    assert ids(answer["documents"]) == ids(found)
    streamed = server.post("/v1/answer", asked | OPTIONS | {"stream": True}).content
    assert f'"id": "{own[0].id}"' in streamed
    assert '"half": "0"' not in streamed
    scored = server.post("/v1/score", asked | {"answer": "a b", "n_docs": 3}).content
    assert scored["log_prob"] == pytest.approx(
        engine.score(QUESTION, "a b", documents=own, n_docs=3), abs=1e-5
    )
    labels = server.post("/v1/classify", asked | {"labels": ["a", "b"], "n_docs": 3}).content
    assert labels["probabilities"] == pytest.approx(
        engine.classify(QUESTION, ["a", "b"], documents=own, n_docs=3), abs=1e-5
    )
    chat = server.post(
        "/v1/completions", {"prompt": QUESTION, "ragengine": {"filter": {"half": ["1"]}, **OPTIONS}}
    ).content
    assert ids(chat["sources"]) == ids(found)
    tensor = {"name": "question", "datatype": "BYTES", "shape": [1], "data": [QUESTION]}
    body = {"inputs": [tensor], "parameters": {"filter": {"half": 1}, **OPTIONS}}
    inferred = server.post("/v2/models/golden/infer", body).content
    assert inferred["outputs"][0]["data"] == [expected.text]


def test_questions_with_other_filters_are_answered_beside_each_other(server: Served) -> None:
    filters: list[Any] = [None, {"half": 0}, {"half": 1}, {"row": [3, 5]}, {"half": 7}] * 4
    with ThreadPoolExecutor(8) as pool:
        replies = list(
            pool.map(
                lambda chosen: server.post("/v1/answer", {"question": QUESTION, "filter": chosen, **OPTIONS}),
                filters,
            )
        )
    for chosen, reply in zip(filters, replies, strict=True):
        if chosen == {"half": 7}:  # its fault is no other question's
            assert reply.status == 400
            assert reply.content["error"]["field"] == "filter"
            assert "No passage matches the filter half='7'" in reply.content["error"]["message"]
            continue
        assert reply.status == 200
        for document in reply.content["documents"]:
            for name, values in (chosen or {}).items():
                wanted = values if isinstance(values, list) else [values]
                assert document["metadata"][name] in map(str, wanted)
        assert len(reply.content["documents"]) == (2 if chosen == {"row": [3, 5]} else 3)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"filter": "half=1"}, 422),
        ({"filter": {"half": None}}, 422),
        ({"filter": {"half": []}}, 422),
        ({"filter": {"": "1"}}, 400),
        ({"filter": {"half": 1}, "documents": [{"text": "a", "score": 1.0}]}, 400),
    ],
)
def test_what_is_no_filter_is_refused(server: Served, wrong: dict[str, Any], status: int) -> None:
    reply = server.post("/v1/answer", {"question": QUESTION, **wrong})
    assert reply.status == status
    assert "filter" in str(reply.content)


def test_the_client_takes_filters_and_gives_metadata(server: Served) -> None:
    pytest.importorskip("httpx2", reason="the extra client is not installed")
    from ragengine_serve import Client

    with Client(server.url) as client:
        answer = client.answer(QUESTION, filter={"half": 1}, **OPTIONS)
        assert {document.metadata["half"] for document in answer.documents} == {"1"}
        assert {d.metadata["half"] for d in client.retrieve(QUESTION, 3, filter={"half": 0})} == {"0"}
