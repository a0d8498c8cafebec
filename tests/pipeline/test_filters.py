"""A filter in every call that searches: what is read is what matches, as if the index held nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragengine import Document, RagEngine, evaluate
from ragengine.errors import InputError
from ragengine.evaluation.questions import Question
from ragengine.replay import Record, read_records, replay, write_records
from tests.support.commands import run
from tests.support.paths import GOLDEN

BUNDLE, INDEX = GOLDEN / "bundle_v4", GOLDEN / "index_v2"
HALF: dict[str, Any] = {"half": 1}
OPTIONS: dict[str, Any] = {"num_beams": 2, "max_length": 8, "n_docs": 3}
QUESTION = "where is Quito?"


@pytest.fixture(scope="module")
def engine() -> Iterator[RagEngine]:
    with RagEngine.load(BUNDLE, INDEX, device="cpu", threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def matching(engine: RagEngine) -> list[Document]:
    """The passages that match, best first, among all that there are."""
    return [d for d in engine.retrieve(QUESTION, 20) if d.metadata["half"] == "1"]


def test_documents_are_the_best_of_those_that_match(engine: RagEngine, matching: list[Document]) -> None:
    assert len(matching) == 10
    for count in (1, 3, 10):
        found = engine.retrieve(QUESTION, count, filter=HALF)
        assert [(d.id, d.score, d.metadata) for d in found] == [
            (d.id, d.score, d.metadata) for d in matching[:count]
        ]
        assert sum(d.prior or 0.0 for d in found) == pytest.approx(1.0)


def test_every_call_reads_what_matches(engine: RagEngine, matching: list[Document]) -> None:
    own = matching[:3]
    answer = engine.generate(QUESTION, filter=HALF, **OPTIONS)
    expected = engine.generate(QUESTION, documents=own, **OPTIONS)
    assert [d.id for d in answer.documents] == [d.id for d in own]
    assert answer.documents[0].metadata == own[0].metadata
    assert answer.to_dict()["documents"][0]["metadata"] == dict(own[0].metadata)
    assert (answer.text, answer.log_prob) == (expected.text, expected.log_prob)
    assert answer.filter == {"half": ["1"]}
    both = engine.generate([QUESTION, "who?"], filter=HALF, **OPTIONS)
    assert all(d.metadata["half"] == "1" for one in both for d in one.documents)
    greedy = {**OPTIONS, "num_beams": 1}
    with engine.stream(QUESTION, filter=HALF, **greedy) as stream:
        assert [d.id for d in stream.documents] == [d.id for d in own]
    assert engine.score(QUESTION, "a b", filter=HALF, n_docs=3) == pytest.approx(
        engine.score(QUESTION, "a b", documents=own, n_docs=3), abs=1e-6
    )
    assert engine.classify(QUESTION, ["a", "b"], filter=HALF, n_docs=3) == pytest.approx(
        engine.classify(QUESTION, ["a", "b"], documents=own, n_docs=3), abs=1e-6
    )


def test_fewer_documents_are_read_where_fewer_match(engine: RagEngine) -> None:
    answer = engine.generate(QUESTION, filter={"row": [4, 7]}, **OPTIONS)
    assert {d.metadata["row"] for d in answer.documents} == {"4", "7"}
    assert "fewer_documents" in answer.flags
    assert engine.generate(QUESTION, filter={}, **OPTIONS).filter is None


def test_what_no_passage_matches_is_said(engine: RagEngine) -> None:
    with pytest.raises(InputError, match="filter half='2'; passages have the fields 'half', 'row'"):
        engine.generate(QUESTION, filter={"half": 2}, **OPTIONS)
    with pytest.raises(InputError, match="documents were given; leave one out"):
        engine.generate(QUESTION, filter=HALF, documents=[Document("a", "b", score=1.0)])


def test_a_prepared_question_is_searched_with_its_filter(engine: RagEngine, matching: list[Document]) -> None:
    (bare,) = engine.prepare([QUESTION], 0)
    answer = engine.generate(bare, filter=HALF, **OPTIONS)
    assert [d.id for d in answer.documents] == [d.id for d in matching[:3]]
    (searched,) = engine.prepare([QUESTION], 3)
    with pytest.raises(InputError, match="found without the filter; prepare it with n_docs=0"):
        engine.generate(searched, filter=HALF, **OPTIONS)


def test_a_record_is_replayed_with_its_filter(engine: RagEngine, tmp_path: Path) -> None:
    answer = engine.generate(QUESTION, filter=HALF, **OPTIONS)
    write_records(tmp_path / "r.json", [Record.of(engine, answer)])
    (record,) = read_records(tmp_path / "r.json")
    assert record.filter == {"half": ["1"]}
    assert replay(engine, record).differences == ()
    content = json.loads((tmp_path / "r.json").read_text())
    del content["filter"]  # as before there were filters
    assert Record.from_dict(content).filter is None


def test_evaluation_searches_with_the_filter(engine: RagEngine) -> None:
    found = evaluate(engine, [Question(QUESTION, ("Quito",))], filter=HALF, resamples=0, **OPTIONS)
    (one,) = found.measured
    assert {d.metadata["half"] for d in one.prediction.documents} == {"1"}
    assert found.to_dict()["measured"]["filter"] == {"half": ["1"]}


def test_commands_take_filters() -> None:
    asked = run(
        "ask",
        BUNDLE,
        INDEX,
        QUESTION,
        "--filter",
        "row=4",
        "--filter",
        "row=7",
        "--filter",
        "half=0",
        "--json",
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert {d["metadata"]["row"] for d in answer["documents"]} == {"4", "7"}
    wrong = run("ask", BUNDLE, INDEX, QUESTION, "--filter", "row")
    assert wrong.returncode == 2
    assert "'row' is not FIELD=VALUE" in wrong.stderr
