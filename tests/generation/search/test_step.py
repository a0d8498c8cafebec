"""A search's step asks the model for as much as the rules need, and no more."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.errors import CancelledError
from ragengine.generation.marginalization import beam_weights
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.step import SearchStep
from ragengine.runtime.cancellation import Stop
from tests.support.ids import stable_repr
from tests.support.table_model import EOS, START, TableModel, V


def stepped(model: TableModel, count: int = 2, **options: Any) -> Any:
    allowed = options.pop("allowed", None)
    rules = Rules(GenerationOptions(eos_token_id=EOS, max_length=6, **options), None, allowed)
    step = SearchStep(model, model.encoded, model.log_prior, rules)
    q, d = model.q, model.d
    first = np.full((q, 1, 1), START)
    zeros = np.zeros((q, 1), np.int64)
    return step.candidates(
        first, np.zeros((q, 1, 0, d), np.float32), zeros, np.zeros((q, 1), np.float32), count
    )


def test_the_candidates_are_the_best_of_the_marginal() -> None:
    model = TableModel(5)
    found = stepped(model)
    for question in range(model.q):
        rows = range(question * model.d, (question + 1) * model.d)
        log_probs = np.stack([model.next_log_probs(row, (START,)) for row in rows])
        marginal = np.logaddexp.reduce(model.log_prior[question][:, None] + log_probs, axis=0)
        best = np.argsort(-marginal)[:2]
        assert found.tokens[question].tolist() == best.tolist()
        np.testing.assert_allclose(found.scores[question], marginal[best], rtol=1e-5)
        np.testing.assert_array_equal(found.log_probs[question], log_probs[:, best])


@pytest.mark.parametrize(
    ("options", "candidates", "probes"),
    [
        ({}, 2, 1),
        ({"suppress_tokens": [3, 4]}, 4, 1),
        ({"suppress_tokens": list(range(V))}, V, 1),  # never more than there are
        ({"repetition_penalty": 1.5}, 3, 1),
        ({"forced_bos_token_id": 0}, 1, 1),
        ({"allowed": lambda question, tokens: [0, 2, 3]}, 1, 3),
    ],
    ids=stable_repr,
)
def test_the_model_is_asked_for_what_the_rules_need(options: Any, candidates: int, probes: int) -> None:
    model = TableModel()
    stepped(model, **options)
    (inputs,) = model.steps
    assert inputs.num_candidates == candidates
    assert inputs.probe_ids.shape[2] == probes
    assert model.started == [(1, 5)]  # of max_length 6, one is the start token


def test_room_is_made_for_every_beam_or_path() -> None:
    for options, paths in (({"num_beams": 3}, 3), ({"do_sample": True, "num_return_sequences": 4}, 4)):
        model = TableModel()
        stepped(model, **options)
        assert model.started == [(paths, 5)]


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_the_weights_are_those_of_the_kind_of_model(marginalize: Any) -> None:
    model, rng = TableModel(q=1), np.random.default_rng(0)
    options = GenerationOptions(eos_token_id=EOS, num_beams=2, marginalize=marginalize, search="joint")
    step = SearchStep(model, model.encoded, model.log_prior, Rules(options))
    log_probs = np.log(rng.uniform(0.1, 1, (1, 2, 1, model.d))).astype(np.float32)
    sequences = np.array([[[START, 3], [START, 4]]])
    step.candidates(sequences, log_probs, np.zeros((1, 2), np.int64), np.zeros((1, 2), np.float32), 2)
    weights = model.steps[0].log_weights
    np.testing.assert_array_equal(weights, beam_weights(model.log_prior, log_probs, marginalize))
    np.testing.assert_allclose(np.exp(weights).sum(axis=1), 1, rtol=1e-5)


def test_a_stop_ends_the_search() -> None:
    class Event:
        def is_set(self) -> bool:
            return True

    model = TableModel()
    rules = Rules(GenerationOptions(eos_token_id=EOS))
    step = SearchStep(model, model.encoded, model.log_prior, rules, Stop(cancel=Event()))
    with pytest.raises(CancelledError, match="after 0 tokens"):
        step.candidates(
            np.full((2, 1, 1), START), np.zeros((2, 1, 0, 3), np.float32), np.zeros((2, 1), np.int64),
            np.zeros((2, 1), np.float32), 2,
        )  # fmt: skip
