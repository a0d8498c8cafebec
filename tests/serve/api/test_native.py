"""The server's own calls give what the engine gives."""

import json
import urllib.request
from typing import Any

import numpy as np
import pytest

from ragengine import Document, GenerationOptions
from ragengine.generation import generator
from ragengine.generation.search.lookahead import search_step
from tests.support.served import QUESTION, Served

DRAWS = {"num_beams": 1, "do_sample": True}
OWN = [
    {"title": "Report", "text": "The report was written by Ada.", "score": 2.0, "metadata": {"owner": "ada"}},
    {"title": "Other", "text": "Nothing.", "score": 1.0, "metadata": {}},
]


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal but for the timings."""
    return {k: v for k, v in found.items() if k != "timings_ms"} == {
        k: v for k, v in json.loads(json.dumps(expected)).items() if k != "timings_ms"
    }


def test_an_answer_is_the_object_of_ask_json(server: Served) -> None:
    reply = server.post("/v1/answer", {"question": QUESTION})
    answer = server.state.models.get(None).engine.generate(QUESTION)
    assert reply.status == 200
    assert same(reply.content, answer.to_dict())
    assert list(reply.content["timings_ms"]) == ["queue", *answer.timings_ms]
    assert reply.headers["X-Request-Id"]


def test_a_server_abstains_and_says_how_sure_it_is(server: Served) -> None:
    engine = server.state.models.get(None).engine
    unsure = "Which time zone does Požarevac use?"
    for question in (QUESTION, unsure):
        reply = server.post("/v1/answer", {"question": question, "abstain": True})
        assert same(reply.content, engine.generate(question).abstain().to_dict())
        assert reply.content["confidence"] == pytest.approx(engine.generate(question).confidence, abs=1e-4)
    assert "abstained" in reply.content["flags"]
    assert (reply.content["answer"], reply.content["tokens"]) == ("", [])
    assert len(reply.content["documents"]) == 5
    refused = server.post("/v1/answer", {"question": QUESTION, "abstain": True, "num_beams": 1})
    assert refused.status == 400
    assert "no confidence" in refused.content["error"]["message"]
    refused = server.post(
        "/v1/answer", {"question": QUESTION, "abstain": True, "num_beams": 1, "stream": True}
    )
    assert (refused.status, refused.content["error"]["field"]) == (400, "abstain")


def test_options_have_the_names_of_the_engine(server: Served) -> None:
    options = {
        "n_docs": 2,
        "num_beams": 3,
        "num_return_sequences": 2,
        "max_new_tokens": 5,
        "min_new_tokens": 2,
    }
    reply = server.post("/v1/answer", {"question": QUESTION, **options, "doc_pruning": 0.0001})
    answer = server.state.models.get(None).engine.generate(QUESTION, **options, doc_pruning=0.0001)
    assert same(reply.content, answer.to_dict())
    assert len(reply.content["hypotheses"]) == 2


def test_documents_are_read_while_they_matter(server: Served) -> None:
    asked = {"question": QUESTION, "num_beams": 1, "marginalize": "token", "adaptive_reading": True}
    reply = server.post("/v1/answer", asked)
    answer = server.state.models.get(None).engine.generate(**asked)
    assert same(reply.content, answer.to_dict())
    for wrong in ({"num_beams": 2}, {"stream": True}):
        refused = server.post("/v1/answer", asked | wrong)
        assert refused.status == 400
        assert refused.content["error"]["param"] == "adaptive_reading"


def test_a_list_is_answered_with_a_list(server: Served) -> None:
    questions = [QUESTION, "What is the capital of Peru?", QUESTION]
    reply = server.post("/v1/answer", {"question": questions, "n_docs": 2})
    assert [answer["question"] for answer in reply.content] == questions
    alone = server.post("/v1/answer", {"question": questions[1], "n_docs": 2})
    assert same(reply.content[1], alone.content)


def test_documents_of_ones_own_are_read(server: Served) -> None:
    reply = server.post("/v1/answer", {"question": "Who wrote it?", "documents": OWN})
    documents = [Document(d["title"], d["text"], score=d["score"], metadata=d["metadata"]) for d in OWN]
    engine = server.state.models.get(None).engine
    assert same(reply.content, engine.generate("Who wrote it?", documents=documents).to_dict())
    assert reply.content["documents"][0]["metadata"] == {"owner": "ada"}
    wrong = server.post(
        "/v1/answer", {"question": "x", "documents": [{"text": "x", "metadata": {"page": 3}}]}
    )
    assert (wrong.status, wrong.content["error"]["field"]) == (422, "documents")
    unscored = [{"title": d["title"], "text": d["text"]} for d in OWN]
    reply = server.post("/v1/answer", {"question": ["a", "b"], "documents": [unscored, unscored]})
    assert [len(answer["documents"]) for answer in reply.content] == [2, 2]


def events_of(server: Served, asked: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The events of a streamed answer: their names and contents."""
    body = json.dumps(asked | {"stream": True}).encode()
    request = urllib.request.Request(server.url + "/v1/answer", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        text = response.read().decode()
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(head.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for head, data in blocks]


def test_a_stream_tells_documents_tokens_and_the_answer(server: Served) -> None:
    events = events_of(server, {"question": QUESTION, "num_beams": 1})
    names = [name for name, _ in events]
    assert names == ["documents", *["token"] * (len(events) - 2), "final"]
    answer = server.state.models.get(None).engine.generate(QUESTION, num_beams=1)
    final = events[-1][1]
    assert final["answer"] == answer.text == "".join(token["text"] for _, token in events[1:-1])
    assert final["score"] == pytest.approx(answer.score, abs=1e-4)
    assert [token["id"] for token in final["tokens"]] == [token["id"] for _, token in events[1:-1]]
    assert [d["id"] for d in events[0][1]["documents"]] == [d.id for d in answer.documents]
    assert all(d["posterior"] is None and d["prior"] is not None for d in events[0][1]["documents"])


@pytest.mark.parametrize("setting", [{"doc_pruning": 0.05}, {"prompt_lookup_num_tokens": 3}])
def test_a_stream_of_fewer_documents_and_steps(
    server: Served, setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[GenerationOptions] = []

    def recorded(model: Any, encoded: Any, log_prior: Any, rules: Any, *given: Any) -> Any:
        searched.append(rules.options)
        return search_step(model, encoded, log_prior, rules, *given)

    asked = {"question": QUESTION, "num_beams": 1, **setting}
    with server.state.models.get(None).engine.stream(**asked) as stream:
        tokens, answer = [token.token_id for token in stream], stream.answer()
    monkeypatch.setattr(generator, "search_step", recorded)
    (_, first), *streamed, (name, final) = events_of(server, asked)
    assert name == "final"
    assert searched == [answer.options]
    assert same(final, answer.to_dict())
    assert [token["id"] for _, token in streamed] == tokens
    assert [d["id"] for d in first["documents"]] == [d.id for d in answer.documents]
    if "doc_pruning" in setting:
        assert answer.pruned, "all documents were read: this question shows nothing"
    else:
        assert searched[0].prompt_lookup_num_tokens == 3


def test_what_cannot_stream_is_refused_with_the_reason(server: Served) -> None:
    reply = server.post("/v1/answer", {"question": QUESTION, "num_beams": 2, "stream": True})
    assert reply.status == 400
    assert "what comes first may change until the end; give num_beams=1" in reply.content["error"]["message"]
    assert reply.content["error"]["field"] == "num_beams"
    reply = server.post("/v1/answer", {"question": [QUESTION], "num_beams": 1, "stream": True})
    assert (reply.status, reply.content["error"]["field"]) == (400, "stream")


def test_documents_are_retrieved(server: Served) -> None:
    engine = server.state.models.get(None).engine
    reply = server.post("/v1/retrieve", {"question": QUESTION, "n_docs": 3})
    assert reply.content["documents"] == [d.to_dict() for d in engine.retrieve(QUESTION, 3)]
    assert list(reply.content["timings_ms"]) == ["queue", "tokenize_question", "encode_question", "search"]
    reply = server.post("/v1/retrieve", {"question": [QUESTION, "x"]})
    assert [len(found["documents"]) for found in reply.content] == [5, 5]


def test_answers_are_scored(server: Served) -> None:
    engine = server.state.models.get(None).engine
    body = {
        "question": QUESTION,
        "answer": " Reykjavik",
        "marginalize": "sequence",
        "exclude_bos_score": True,
    }
    reply = server.post("/v1/score", body)
    expected = engine.score(QUESTION, " Reykjavik", marginalize="sequence", exclude_bos_score=True)
    assert reply.content["log_prob"] == pytest.approx(expected, abs=1e-5)
    ids = engine.generate(QUESTION).hypotheses[0].token_ids.tolist()
    reply = server.post("/v1/score", {"question": [QUESTION, QUESTION], "answer": [ids, " Lima"]})
    expected_scores = engine.score([QUESTION, QUESTION], [ids, " Lima"])
    assert [row["log_prob"] for row in reply.content] == pytest.approx(expected_scores, abs=1e-4)


def test_claims_are_classified(server: Served) -> None:
    labels = [" Reykjavik", " Lima"]
    reply = server.post("/v1/classify", {"question": QUESTION, "labels": labels})
    expected = server.state.models.get(None).engine.classify(QUESTION, labels)
    assert reply.content["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_questions_and_passages_are_embedded(server: Served) -> None:
    engine = server.state.models.get(None).engine
    questions = server.post("/v1/embed", {"question": [QUESTION, "x"]}).content
    passages = server.post("/v1/embed", {"passages": [{"title": "Iceland", "text": "An island."}]}).content
    prepared = engine.prepare([QUESTION, "x"], 0)
    np.testing.assert_allclose(questions["vectors"], [p.encoded.vectors[0] for p in prepared], atol=1e-5)
    expected = engine.encode_passages([Document("Iceland", "An island.")])
    np.testing.assert_allclose(passages["vectors"], expected, atol=1e-5)
    assert questions["dimension"] == expected.shape[1]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/answer", {}, 422, "question"),
        ("/v1/answer", {"question": 3}, 422, "question"),
        ("/v1/answer", {"question": QUESTION, "num_beam": 3}, 422, "num_beam"),
        ("/v1/answer", {"question": QUESTION, "num_beams": "3"}, 422, "num_beams"),
        ("/v1/answer", {"question": QUESTION, "num_beams": 0}, 400, "num_beams"),
        ("/v1/answer", {"question": QUESTION, "num_beams": 33}, 400, "num_beams"),
        ("/v1/answer", {"question": QUESTION, "n_docs": 101}, 400, "n_docs"),
        ("/v1/answer", {"question": QUESTION, "max_length": 514}, 400, None),
        ("/v1/answer", {"question": "x", **DRAWS, "num_return_sequences": 33}, 400, "num_return_sequences"),
        ("/v1/answer", {"question": QUESTION, "model": "nothing"}, 404, "model"),
        ("/v1/answer", {"question": QUESTION, "deadline_ms": 0}, 422, "deadline_ms"),
        ("/v1/answer", {"question": QUESTION, "doc_pruning": 2}, 422, "doc_pruning"),
        ("/v1/answer", {"question": ["x"] * 33}, 400, "question"),
        ("/v1/answer", {"question": []}, 422, "question"),
        ("/v1/answer", {"question": QUESTION, "documents": []}, 400, "documents"),
        ("/v1/answer", {"question": QUESTION, "documents": [OWN]}, 400, "documents"),
        ("/v1/answer", {"question": QUESTION, "documents": [OWN[0], {"text": "x"}]}, 400, "documents"),
        ("/v1/answer", {"question": QUESTION, "documents": [{"title": "no text"}]}, 422, "documents"),
        ("/v1/answer", {"question": QUESTION, "suppress_tokens": [10**9]}, 400, "suppress_tokens"),
        ("/v1/score", {"question": QUESTION}, 422, "answer"),
        ("/v1/score", {"question": QUESTION, "answer": [1.5]}, 400, "answer"),
        ("/v1/score", {"question": ["a", "b"], "answer": ["a"]}, 400, "answer"),
        ("/v1/score", {"question": QUESTION, "answer": [10**8]}, 400, None),
        ("/v1/classify", {"question": QUESTION, "labels": []}, 422, "labels"),
        ("/v1/classify", {"question": QUESTION, "labels": ["a", "a"]}, 400, "labels"),
        ("/v1/embed", {}, 400, "question"),
        ("/v1/embed", {"passages": []}, 422, "passages"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(
    server: Served, path: str, body: Any, status: int, field: str | None
) -> None:
    reply = server.post(path, body)
    assert reply.status == status, reply.content
    error = reply.content["error"]
    assert error["message"].endswith(".")
    assert set(error) == {"type", "message", "field", "param", "code"}
    if field is not None:
        assert error["field"] == field, error
    assert "Traceback" not in str(reply.content)
