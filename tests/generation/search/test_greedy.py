"""Greedy tokens as they are found are those of beam search with one beam."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.errors import OptionsError
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.greedy import greedy_tokens
from ragengine.generation.search.outputs import hypothesis
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.search import search
from ragengine.generation.search.step import SearchStep
from ragengine.runtime.cancellation import NEVER
from tests.support.table_model import EOS, TableModel, V


def options_of(**options: Any) -> GenerationOptions:
    return GenerationOptions(eos_token_id=EOS, max_length=8, search="joint", **options)


def step_of(seed: int, **options: Any) -> SearchStep:
    model = TableModel(seed, q=1)
    rules = Rules(options_of(**options))
    return SearchStep(model, model.encoded, model.log_prior, rules)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("options", [{}, {"marginalize": "sequence"}, {"no_repeat_ngram_size": 2}], ids=str)
def test_tokens_probabilities_and_posteriors_are_those_of_one_beam(seed: int, options: Any) -> None:
    ((output,),) = beam_search(step_of(seed, **options))
    step = step_of(seed, **options)
    whole = hypothesis(output, step.log_prior[0], step.options.marginalize)
    found = list(greedy_tokens(step))
    assert [token.token_id for token in found] == whole.token_ids.tolist()
    np.testing.assert_allclose([token.log_prob for token in found], whole.token_log_probs, atol=1e-6)
    np.testing.assert_allclose([token.posterior for token in found], whole.token_posteriors, atol=1e-6)


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_a_score_is_that_of_the_output_that_ends_there(marginalize: Any, length_penalty: float) -> None:
    options = {"marginalize": marginalize, "length_penalty": length_penalty, "min_length": 7}
    found = list(greedy_tokens(step_of(1, **options)))
    assert len(found) > 4
    lengths = 1 if marginalize == "sequence" else np.arange(1, len(found) + 1) ** length_penalty
    log_probs = np.cumsum([token.log_prob for token in found])
    np.testing.assert_allclose([token.score for token in found], log_probs / lengths, rtol=1e-5)
    model, rules = TableModel(1, q=1), Rules(options_of(**options))
    ((whole,),) = search(model, model.encoded, model.log_prior, rules, NEVER)
    assert found[-1].score == pytest.approx(whole.score, rel=1e-5)


def test_a_token_is_computed_when_it_is_asked_for() -> None:
    model = TableModel(3, q=1)
    rules = Rules(GenerationOptions(eos_token_id=EOS, max_length=8, min_length=7))
    tokens = greedy_tokens(SearchStep(model, model.encoded, model.log_prior, rules))
    assert model.steps == []
    for count in (1, 2, 3):
        next(tokens)
        assert len(model.steps) == count


def test_rules_that_leave_nothing_are_an_error() -> None:
    with pytest.raises(OptionsError, match="leave no output for question 0"):
        list(greedy_tokens(step_of(0, suppress_tokens=list(range(V)))))
