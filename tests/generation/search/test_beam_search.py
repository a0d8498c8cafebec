"""Beam search over the marginal: with a beam for every prefix it finds the best outputs there are."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.step import SearchStep
from tests.support.table_model import EOS, TableModel, V
from tests.support.toys import sequence_likelihood, token_likelihood

LONGEST = 3  # tokens
LIKELIHOODS = {"token": token_likelihood, "sequence": sequence_likelihood}


def options_of(**changed: Any) -> GenerationOptions:
    return GenerationOptions(**{"eos_token_id": EOS, "max_length": LONGEST + 1, **changed})


def searched(model: TableModel, options: GenerationOptions) -> list[list[tuple[int, ...]]]:
    found = beam_search(SearchStep(model, model.encoded, model.log_prior, Rules(options)))  # type: ignore[arg-type]
    return [[tuple(output.token_ids.tolist()) for output in outputs] for outputs in found]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("marginalize", ["token", "sequence"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_all_beams_find_the_best_outputs(seed: int, marginalize: Any, length_penalty: float) -> None:
    model, beams = TableModel(seed), V**LONGEST
    options = options_of(
        num_beams=beams, num_return_sequences=4, length_penalty=length_penalty, early_stopping="never",
        marginalize=marginalize, search="joint",
    )  # fmt: skip
    for question, found in enumerate(searched(model, options)):
        outputs = model.outputs(question, LONGEST)
        scores = {
            tokens: LIKELIHOODS[marginalize](model.log_prior[question], given) / len(tokens) ** length_penalty
            for tokens, given in outputs.items()
        }
        assert found == sorted(scores, key=lambda tokens: -scores[tokens])[:4]


def test_one_beam_takes_the_most_probable_token_each_step() -> None:
    model = TableModel(seed=4)
    ((found,), _) = searched(model, options_of())
    prefix: tuple[int, ...] = ()
    for token in found:
        rows = [model.next_log_probs(row, (2, *prefix)) for row in range(model.d)]
        marginal = np.logaddexp.reduce(model.log_prior[0][:, None] + np.stack(rows), axis=0)
        assert token == marginal.argmax()
        prefix += (token,)


def test_a_question_does_not_depend_on_its_neighbours() -> None:
    """The second ends after the first, which waits unchanged."""
    model, options = TableModel(seed=1), options_of(num_beams=2, num_return_sequences=2, max_length=9)
    together = searched(model, options)
    step = SearchStep(model, model.encoded, model.log_prior, Rules(options))  # type: ignore[arg-type]
    first = beam_search(step)[0]
    assert together[0] == [tuple(output.token_ids.tolist()) for output in first]
    alone = TableModel(seed=1, q=1)
    alone_prior = model.log_prior[:1]
    found = beam_search(SearchStep(alone, alone.encoded, alone_prior, Rules(options)))  # type: ignore[arg-type]
    assert [tuple(output.token_ids.tolist()) for output in found[0]] == together[0]


def test_early_stopping_ends_at_enough_finished_outputs() -> None:
    """It makes no more steps than a search that goes on, and fewer for some seed."""
    fewer = 0
    for seed in range(8):
        counts = []
        for early_stopping in (True, "never"):
            model = TableModel(seed, q=1)
            searched(model, options_of(num_beams=3, max_length=12, early_stopping=early_stopping))
            counts.append(len(model.steps))
        assert counts[0] <= counts[1]
        fewer += counts[0] < counts[1]
    assert fewer


def test_nothing_is_found_where_everything_is_banned() -> None:
    model = TableModel()
    assert searched(model, options_of(suppress_tokens=list(range(V)))) == [[], []]
