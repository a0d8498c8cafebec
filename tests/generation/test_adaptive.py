"""Adaptive reading finds the tokens of reading everything, from fewer documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions, RagEngine
from ragengine.errors import InputError, OptionsError
from ragengine.generation.adaptive import check_adaptive, generate_adaptively
from ragengine.generation.contexts import Contexts
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.search import search
from ragengine.replay import Record, replay
from ragengine.runtime.cancellation import NEVER
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair
from tests.support.models import transformers_5

D, S = 6, 12
OPTIONS: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 2, "min_length": 5},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 2},
    {"suppress_tokens": [8, 9], "bad_words_ids": [[11], [12, 13]]},
    {"encoder_no_repeat_ngram_size": 2},
]


@pytest.fixture(
    scope="module",
    params=["bart", pytest.param("t5", marks=transformers_5), pytest.param("mbart", marks=transformers_5)],
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = build_pair(random_spec(3, model_type=request.param), tmp_path_factory.mktemp("adaptive"))
    yield made
    made.engine.close()


def contexts(rng: np.random.Generator, spread: float) -> Contexts:
    """One question whose documents differ in length and, by ``spread``, in their priors; one has none."""
    ids = rng.integers(4, 40, (1, D, S))
    mask = (np.arange(S) < rng.integers(2, S + 1, (1, D, 1))).astype(np.int64)
    scores = rng.normal(scale=spread, size=(1, D))
    scores[0, rng.integers(D)] = -np.inf
    prior = scores - np.logaddexp.reduce(scores[np.isfinite(scores)])
    return Contexts(ids, mask, prior.astype(np.float32))


def test_every_token_is_that_of_reading_everything(family: Pair) -> None:
    """Probabilities differ by no more than the prior of what was not read."""
    model, counts = family.engine.generator._model, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        given = contexts(rng, spread=(0.3, 2.0, 6.0)[seed % 3])
        options = GenerationOptions(max_length=10, eos_token_id=2, **OPTIONS[seed % len(OPTIONS)])
        allowed = (lambda question, tokens: range(4, 30)) if seed % 7 == 0 else None
        rules = Rules(options, given.visible_ids, allowed)
        encoded = model.encode_documents(given.input_ids, given.attention_mask)
        ((whole,),) = search(model, encoded, given.log_prior, rules, NEVER)
        found = generate_adaptively(model, given, rules, NEVER)
        (ours,) = found.hypotheses
        assert ours.token_ids.tolist() == whole.token_ids.tolist()
        order = np.argsort(-given.log_prior[0], kind="stable")
        assert found.documents.tolist() == order[: len(found.documents)].tolist()
        unread = 1 - np.exp(given.log_prior[0][found.documents]).sum()
        difference = np.abs(np.exp(ours.token_log_probs) - np.exp(whole.token_log_probs))
        assert (difference <= unread + 1e-5).all()
        counts.append(len(found.documents))
    assert min(counts) == 1  # a question whose prior is nearly all one document's
    assert max(counts) == D - 1  # and one that needs them all
    assert np.mean(counts) < 0.8 * (D - 1)


def question_with_parts(pair: Pair, **options: Any) -> tuple[str, Any]:
    for number in range(40):
        (question,) = pair.questions(number, 1)
        answer = pair.engine.generate(question, adaptive_reading=True, **options)
        if answer.pruned:
            return question, answer
    raise AssertionError("no question was answered from fewer documents")


def test_an_answer_says_what_was_not_read(family: Pair) -> None:
    asked = {"num_beams": 1, "marginalize": "token", "n_docs": 6, "repetition_penalty": 1.0}
    question, answer = question_with_parts(family, **asked)
    whole = family.engine.generate(question, **asked)
    assert answer.hypotheses[0].token_ids.tolist() == whole.hypotheses[0].token_ids.tolist()
    names = [document.id for document in whole.documents]
    assert [document.id for document in (*answer.documents, *answer.pruned)] == names
    assert sum(document.prior for document in answer.documents) == pytest.approx(1, abs=1e-5)
    assert answer.pruned_mass == pytest.approx(sum(d.prior for d in whole.documents[len(answer.documents) :]))
    assert "documents_pruned" in answer.flags
    assert answer.token_posteriors.shape[1] == len(answer.documents)
    several = family.engine.generate([question, question], adaptive_reading=True, **asked)
    assert [one.score for one in several] == [answer.score, answer.score]
    assert not replay(family.engine, Record.of(family.engine, answer)).differences


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"do_sample": True},
        {"marginalize": "sequence", "search": "joint"},
        {"repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_other_searches_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match="adaptive_reading cannot follow"):
        check_adaptive(GenerationOptions(**options))


def test_it_is_a_flag(pair: Pair) -> None:
    engine: RagEngine = pair.engine
    with pytest.raises(InputError, match="adaptive_reading is int"):
        engine.generate("Who?", adaptive_reading=1)
