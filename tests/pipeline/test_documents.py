"""Priors of documents, which of them are read, and what callers may give."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine import Document
from ragengine.bundle.bundle import Bundle
from ragengine.errors import BundleError, IndexFolderError, InputError
from ragengine.pipeline.documents import PassageScorer, checked_pruning, given_documents, select_documents
from ragengine.retrieval.encoder import TextEncoder
from ragengine.runtime.cancellation import NEVER
from tests.robustness.golden import GOLDEN

SCORES = st.lists(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=5), min_size=1, max_size=3)


def documents_of(scores: list[list[float]]) -> list[list[Document]]:
    return [[Document("t", "x", id=str(n), score=score) for n, score in enumerate(row)] for row in scores]


@given(SCORES)
def test_priors_are_the_softmax_over_the_documents_of_a_question(scores: list[list[float]]) -> None:
    selected = select_documents(documents_of(scores), None)
    assert selected.log_prior.shape == (len(scores), max(map(len, scores)))
    for row, found, log_prior in zip(scores, selected.documents, selected.log_prior, strict=True):
        exact = np.exp(np.array(row) - np.logaddexp.reduce(row))
        np.testing.assert_allclose([document.prior for document in found], exact, rtol=1e-4, atol=1e-30)
        np.testing.assert_allclose(np.exp(log_prior[: len(row)]), exact, rtol=1e-4, atol=1e-30)
        assert np.isneginf(log_prior[len(row) :]).all()
    assert selected.pruned == [[] for _ in scores]


@given(SCORES, st.floats(0, 1))
def test_pruning_leaves_out_what_is_under_the_threshold_and_keeps_the_best(
    scores: list[list[float]], threshold: float
) -> None:
    whole = select_documents(documents_of(scores), None)
    selected = select_documents(documents_of(scores), threshold)
    for every, kept, pruned in zip(whole.documents, selected.documents, selected.pruned, strict=True):
        priors = {document.id: document.prior or 0.0 for document in every}
        best = max(priors.values())
        assert {document.id for document in pruned} == {
            name for name, prior in priors.items() if prior < min(threshold, best)
        }
        assert [document.id for document in kept] == [
            name for name, prior in priors.items() if prior >= min(threshold, best)
        ]
        assert [document.prior for document in pruned] == [priors[document.id] for document in pruned]
        assert sum(document.prior or 0.0 for document in kept) == pytest.approx(1, abs=1e-5)
    # exactly the priors of a search that had found these documents alone
    again = select_documents(selected.documents, None)
    np.testing.assert_array_equal(selected.log_prior, again.log_prior)


def test_a_question_without_a_passage_is_an_error_of_the_index() -> None:
    with pytest.raises(IndexFolderError, match="no passage for question 1"):
        select_documents([*documents_of([[1.0]]), []], None)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "0.5", True, float("nan"), [0.1]], ids=repr)
def test_a_threshold_is_a_probability(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"doc_pruning is .*from 0 to 1"):
        checked_pruning(wrong)
    assert [checked_pruning(fine) for fine in (None, 0, 0.25, 1)] == [None, 0, 0.25, 1]


WRONG: dict[str, tuple[Any, int, bool, str]] = {
    "one list for two": (documents_of([[1.0]]), 2, False, "1 lists for 2 questions"),
    "no document": ([], 1, True, "documents of question 0 is empty"),
    "no Document": (["text"], 1, True, "Document 0 of question 0 is str"),
    "a score and none": ([Document("a", "b", score=1.0), Document("a", "b")], 1, True, "give all or none"),
    "nothing left in": ([Document("a", "b", score=-np.inf)], 1, True, "leave one in"),
    "a score beyond float32": ([Document("a", "b", score=1e39)], 1, True, "float32"),
    "a text that is none": ([Document("a", 5)], 1, True, "The text of document 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_documents_are_named(name: str) -> None:
    documents, questions, single, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        given_documents(documents, questions, single=single)


def test_documents_without_scores_are_scored_by_the_passage_encoder() -> None:
    class Encoder:
        def encode_by_length(self, pairs: list[tuple[str, str]], stop: Any) -> np.ndarray:
            return np.array([[len(title), len(text)] for title, text in pairs], np.float32)

    scorer = PassageScorer(Bundle.open(GOLDEN / "bundle_v4"), None)
    own = [[Document("a", "bcd"), Document("ef", "")], [Document("g", "h", score=2)]]
    vectors = np.array([[1, 10], [5, 5]], np.float32)
    with patch.object(TextEncoder, "load", return_value=Encoder()) as load:
        found = scorer.scored(own, vectors, NEVER)
        scorer.scored(own, vectors, NEVER)
    assert [[document.score for document in row] for row in found] == [[31.0, 2.0], [2.0]]
    assert load.call_count == 1


def test_without_a_passage_encoder_scores_are_needed() -> None:
    bundle = Bundle.open(GOLDEN / "bundle_v2")
    scorer = PassageScorer(replace(bundle, manifest=replace(bundle.manifest, passage_encoder=None)), None)
    with pytest.raises(InputError, match="this bundle has no passage encoder"):
        scorer.scored([[Document("a", "b")]], np.zeros((1, 8), np.float32), NEVER)


def test_the_passage_encoder_of_another_bundle_is_not_loaded(tmp_path: Path) -> None:
    """It is loaded late: its vectors would be another model's, without a sign of it."""
    folder = shutil.copytree(GOLDEN / "bundle_v4", tmp_path / "bundle")
    loaded, lost = (PassageScorer(Bundle.open(folder), None) for _ in range(2))
    passages = [Document("a", "b")]
    expected = loaded.encode(passages, NEVER)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["files"]["question_encoder/passages.bin"]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match="holds another bundle than was loaded; load it again"):
        lost.encode(passages, NEVER)
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match=r"The bundle that was loaded is gone: .* is not a folder"):
        lost.encode(passages, NEVER)
    np.testing.assert_array_equal(loaded.encode(passages, NEVER), expected)
