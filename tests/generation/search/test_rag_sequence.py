"""RAG-Sequence's searches by document against their definitions in the paper, section 2.5."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.generation.search.rag_sequence import Found, fast, search_by_document, thorough
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.search import search
from ragengine.runtime.cancellation import NEVER
from tests.support.table_model import BOS, EOS, PAD, TableModel
from tests.support.toys import sequence_likelihood

LONGEST = 4


def options_of(**changed: Any) -> GenerationOptions:
    settings: dict[str, Any] = {
        "eos_token_id": EOS,
        "max_length": LONGEST + 1,
        "num_beams": 2,
        "marginalize": "sequence",
    }
    settings |= {"suppress_tokens": [PAD], "exclude_bos_score": False}  # pads inside score nothing
    return GenerationOptions(**{**settings, **changed})


@pytest.fixture(params=range(4))
def model(request: pytest.FixtureRequest) -> TableModel:
    return TableModel(request.param)


def found_by(model: TableModel, options: GenerationOptions) -> list[Found]:
    return search_by_document(model, model.encoded, Rules(options))


def tokens_of(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(output.token_ids.tolist()) for output in outputs]


ALONE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "beams": ({}, {"num_return_sequences": 2}),
    "draws": ({"do_sample": True, "num_beams": 1, "num_return_sequences": 3, "seed": 1}, {}),
    "drawn beams": ({"do_sample": True, "num_beams": 3, "seed": 1}, {"num_return_sequences": 3}),
    # In RAG-Sequence the second limit replaces the first.
    "limits": ({"min_length": 5, "min_new_tokens": 2}, {"min_length": 0, "num_return_sequences": 2}),
}


@pytest.mark.parametrize("name", ALONE)
def test_every_document_is_searched_alone(model: TableModel, name: str) -> None:
    """Y(z) is what RAG-Token finds in a model that has this document only."""
    changed, alone_changed = ALONE[name]
    options = options_of(**changed)
    found = found_by(model, options)
    assert [len(documents) for documents in found] == [model.d] * model.q
    alone = TableModel(model.seed, q=model.q * model.d, d=1)  # with the same rows of the table
    rules = Rules(options.replace(marginalize="token", **alone_changed))
    expected = search(alone, alone.encoded, alone.log_prior, rules, NEVER)
    ours = [own for documents in found for own in documents]
    for own, hypotheses in zip(ours, expected, strict=True):
        assert tokens_of(own) == tokens_of(hypotheses)
        scores = [hypothesis.score for hypothesis in hypotheses]
        np.testing.assert_allclose([output.score for output in own], scores, rtol=1e-5)
        for output, hypothesis in zip(own, hypotheses, strict=True):
            np.testing.assert_allclose(output.log_probs[:, 0], hypothesis.token_log_probs, rtol=1e-5)


@pytest.mark.parametrize("exclude_bos_score", [False, True])
@pytest.mark.parametrize("first", [None, BOS])
def test_thorough_scores_every_candidate_under_every_document(
    model: TableModel, exclude_bos_score: bool, first: int | None
) -> None:
    """All of it, or all but BOS where every candidate of the question begins with that."""
    options = options_of(
        num_return_sequences=9, exclude_bos_score=exclude_bos_score, forced_bos_token_id=first
    )
    found = found_by(model, options)
    ranked = thorough(model, model.encoded, found, model.log_prior, options)
    assert len(ranked) == model.q
    for question, outputs in enumerate(ranked):
        candidates = {y for own in found[question] for y in tokens_of(own)}
        every = model.outputs(question, LONGEST)
        skipped = int(exclude_bos_score and all(y[0] == BOS for y in candidates))
        # Outputs of one token lose the prior, as in transformers.
        exact = {
            y: sequence_likelihood(model.log_prior[question], every[y][skipped:]) if len(y) > 1
            else float(np.logaddexp.reduce(every[y][0]))
            for y in candidates
        }  # fmt: skip
        assert set(tokens_of(outputs)) == candidates
        for output in outputs:
            assert output.score == pytest.approx(exact[tuple(output.token_ids.tolist())], abs=1e-5)
        scores = [output.score for output in outputs]
        assert scores == sorted(scores, reverse=True)


def test_the_best_are_returned(model: TableModel) -> None:
    for name, rank in (("thorough", thorough), ("fast", fast)):
        every, some = (options_of(num_return_sequences=count, search=name) for count in (9, 2))
        found = found_by(model, every)
        given: Any = (model, model.encoded) if name == "thorough" else ()
        all_of_them, best = (rank(*given, found, model.log_prior, options) for options in (every, some))
        assert [tokens_of(outputs)[:2] for outputs in all_of_them] == [tokens_of(outputs) for outputs in best]
        for outputs in all_of_them:
            scores = [output.score for output in outputs]
            assert len(scores) > 2
            assert scores == sorted(scores, reverse=True)


def test_without_deduplication_equal_candidates_stay(model: TableModel) -> None:
    options = options_of(num_return_sequences=9, do_deduplication=False)
    found = found_by(model, options)
    ranked = thorough(model, model.encoded, found, model.log_prior, options)
    for question, outputs in enumerate(ranked):
        every = [y for own in found[question] for y in tokens_of(own)]
        assert sorted(tokens_of(outputs)) == sorted(every)


def test_fast_counts_the_documents_that_found_an_output(model: TableModel) -> None:
    options = options_of(num_return_sequences=9, search="fast")
    found = found_by(model, options)
    for question, outputs in enumerate(fast(found, model.log_prior, options)):
        every = model.outputs(question, LONGEST)
        for output in outputs:
            tokens = tuple(output.token_ids.tolist())
            finders = [z for z, own in enumerate(found[question]) if tokens in tokens_of(own)]
            exact = sequence_likelihood(model.log_prior[question][finders], every[tokens][:, finders])
            assert output.score == pytest.approx(exact, abs=1e-5)


def test_a_document_without_a_prior_brings_no_candidate(model: TableModel) -> None:
    options = options_of(num_return_sequences=9)
    found = found_by(model, options)
    log_prior = model.log_prior.copy()
    log_prior[:, 0] = -np.inf
    ranked = thorough(model, model.encoded, found, log_prior, options)
    for question, outputs in enumerate(ranked):
        others = {y for own in found[question][1:] for y in tokens_of(own)}
        assert set(tokens_of(outputs)) == others
