"""RAG-Sequence's searches by document against their definitions in the paper, section 2.5."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.generation.search.rag_sequence import Found, fast, search_by_document, thorough
from ragengine.generation.search.rules import Rules
from tests.support.table_model import EOS, PAD, TableModel
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
    return search_by_document(model, model.encoded, Rules(options))  # type: ignore[arg-type]


def tokens_of(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(output.token_ids.tolist()) for output in outputs]


def test_every_document_is_searched_alone(model: TableModel) -> None:
    """Y(z) is what a model with that document alone finds."""
    options = options_of()
    found = found_by(model, options)
    assert [len(documents) for documents in found] == [model.d] * model.q
    for question in range(model.q):
        outputs = model.outputs(question, LONGEST)
        for document, own in enumerate(found[question]):
            for output in own:
                tokens = tuple(output.token_ids.tolist())
                np.testing.assert_allclose(output.log_probs[:, 0], outputs[tokens][:, document], rtol=1e-6)


def test_thorough_scores_every_candidate_under_every_document(model: TableModel) -> None:
    options = options_of(num_return_sequences=9)
    found = found_by(model, options)
    ranked = thorough(model, model.encoded, found, model.log_prior, options)  # type: ignore[arg-type]
    for question, outputs in enumerate(ranked):
        candidates = {y for own in found[question] for y in tokens_of(own)}
        every = model.outputs(question, LONGEST)
        # Outputs of one token lose the prior, as in transformers.
        exact = {
            y: sequence_likelihood(model.log_prior[question], every[y]) if len(y) > 1
            else float(np.logaddexp.reduce(every[y][0]))
            for y in candidates
        }  # fmt: skip
        assert set(tokens_of(outputs)) == candidates
        for output in outputs:
            assert output.score == pytest.approx(exact[tuple(output.token_ids.tolist())], abs=1e-5)
        scores = [output.score for output in outputs]
        assert scores == sorted(scores, reverse=True)


def test_without_deduplication_equal_candidates_stay(model: TableModel) -> None:
    options = options_of(num_return_sequences=9, do_deduplication=False)
    found = found_by(model, options)
    ranked = thorough(model, model.encoded, found, model.log_prior, options)  # type: ignore[arg-type]
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
    ranked = thorough(model, model.encoded, found, log_prior, options)  # type: ignore[arg-type]
    for question, outputs in enumerate(ranked):
        others = {y for own in found[question][1:] for y in tokens_of(own)}
        assert set(tokens_of(outputs)) == others
