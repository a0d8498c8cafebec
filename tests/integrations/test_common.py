"""What the adapters share, with the engine and without any framework."""

import math
from collections import UserDict
from dataclasses import replace
from typing import Any

import pytest

from ragengine import Document, RagEngine
from ragengine.errors import InputError
from ragengine.integrations.common import (
    ask,
    checked_engine,
    checked_settings,
    metadata_of,
    sources,
    to_documents,
)
from tests.integrations.conftest import FACTS, QUESTION


def carried(document: Document) -> tuple[str, str, dict[str, Any]]:
    """A document as a framework carries it."""
    return document.id, document.text, metadata_of(document)


def test_documents_come_back_as_they_went(engine: RagEngine) -> None:
    found = engine.retrieve(QUESTION)
    assert to_documents(map(carried, found)) == [replace(document, prior=None) for document in found]


def test_metadata_holds_what_is_known() -> None:
    assert metadata_of(Document(title="", text="x", id="1")) == {}
    assert metadata_of(Document("t", "x", "1", 2.0, 0.5, 0.25)) == {
        "title": "t",
        "doc_score": 2.0,
        "prior": 0.5,
        "posterior": 0.25,
    }
    kept = Document("t", "x", score=1.0, metadata={"owner": "data", "id": "7", "prior": "high", "title": "T"})
    assert metadata_of(kept) == {"owner": "data", "title": "t", "doc_score": 1.0}
    assert metadata_of(Document("t", "x", score=0.0, prior=0.0)) == {
        "title": "t",
        "doc_score": 0.0,
        "prior": 0.0,
    }


@pytest.mark.parametrize("missing", [{}, {"doc_score": None}])
def test_one_document_without_a_score_lets_the_encoder_score_all(missing: dict[str, Any]) -> None:
    documents = to_documents([("1", "x", {"doc_score": 3.0}), (None, "y", {"title": None, **missing})])
    assert documents == [Document("", "x", "1"), Document("", "y", "")]


def test_other_metadata_is_the_documents_own(owned: RagEngine) -> None:
    own = {
        "owner": "data",
        "page": 3,
        "tags": ["a", "é"],
        "draft": False,
        "left": None,
        "odd": {1, 2},
        5: "x",
    }
    (document,) = to_documents([("1", "x", {**own, "title": "t", "doc_score": 3.0, "prior": 1.0, "id": "9"})])
    expected = {"owner": "data", "page": "3", "tags": '["a", "é"]', "draft": "false"}
    assert document == Document("t", "x", "1", 3.0, metadata=expected)
    found = owned.retrieve(QUESTION)
    assert found[0].metadata == {**FACTS, "prior": "high", "doc_score": "x"}
    answer = ask(owned, QUESTION, to_documents(map(carried, found)), {})
    assert answer.to_dict()["documents"][0]["metadata"] == FACTS


def test_the_encoder_scores_as_the_index_does(engine: RagEngine) -> None:
    """So a hybrid search may mix documents of both kinds."""
    found = engine.retrieve(QUESTION)
    answer = ask(engine, QUESTION, to_documents((d.id, d.text, {"title": d.title}) for d in found), {})
    assert [d.prior for d in answer.documents] == pytest.approx([d.prior for d in found], abs=0.02)


def test_sources_are_ranked_by_their_share_and_keep_the_originals(engine: RagEngine) -> None:
    found = engine.retrieve(QUESTION)[::-1]  # the answer's document last
    given = to_documents(map(carried, found))
    ranked = sources(range(len(found)), given, ask(engine, QUESTION, given, {}))
    assert [original for original, _ in ranked][:2] == [4, 3]
    assert all(
        original is not None and given[original].title == document.title for original, document in ranked
    )


def test_sources_of_pruned_documents_are_those_that_stayed(engine: RagEngine) -> None:
    """Two documents of the same text but different scores are told apart."""
    first, second, third = engine.retrieve(QUESTION)[:3]
    given = [replace(third, prior=None), replace(first, score=1.0), second, replace(first, prior=None)]
    answer = ask(engine, QUESTION, given, {"doc_pruning": 0.01})
    assert answer.pruned_documents == 2
    assert [original for original, _ in sources("abcd", given, answer)] == ["d", "c"]


def test_documents_that_are_left_out_of_the_mixture_are_sources_without_a_share(engine: RagEngine) -> None:
    first, second = engine.retrieve(QUESTION)[:2]
    given = [replace(first, score=-math.inf), second]
    answer = ask(engine, QUESTION, given, {})
    assert [original for original, _ in sources("ab", given, answer)] == ["b", "a"]


def test_settings_are_arguments_of_generate(engine: RagEngine) -> None:
    assert checked_settings(None) == {}
    assert checked_settings(UserDict(num_beams=2)) == {"num_beams": 2}
    answer = ask(engine, QUESTION, None, {"n_docs": 2, "num_beams": 3})
    assert len(answer.documents) == 2
    assert answer.options.num_beams == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([("num_beams", 2)], "it must be a dict"),
        ({1: 2}, "it must be a dict"),
        ({"documents": []}, "sets documents; give question and documents to the call"),
        ({"question": "x", "options": None}, "sets question and options"),
    ],
)
def test_settings_that_the_call_decides_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_settings(settings)


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(InputError, match="engine is str; it must be a RagEngine"):
        checked_engine("examples/worldfacts/bundle")


def test_one_question_is_asked(engine: RagEngine) -> None:
    with pytest.raises(InputError, match="The question is list; it must be a str"):
        ask(engine, [QUESTION], None, {})
