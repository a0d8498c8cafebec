"""RAG-Sequence's own searches, `joint` and `fast`, against the paper's definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair, full_options
from tests.support.toys import EOS, Toy, V, build_toy, sequence_likelihood

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=range(1200, 1205), ids="seed{}".format)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return build_pair(random_spec(request.param), tmp_path_factory.mktemp(f"joint{request.param}"))


@pytest.fixture(scope="module", params=range(3000, 3008), ids="seed{}".format)
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return build_toy(request.param, tmp_path_factory.mktemp(f"toy{request.param}"))


@pytest.mark.parametrize(
    "search",
    [
        {"num_beams": 1, "max_length": 20},
        {"num_beams": 4, "num_return_sequences": 4, "max_length": 16, "length_penalty": 0.0},
        {"num_beams": 5, "num_return_sequences": 3, "max_length": 24, "early_stopping": "never"},
        {
            "num_beams": 3,
            "num_return_sequences": 3,
            "max_length": 9,
            "forced_bos_token_id": 0,
            "min_length": 8,
        },
        {"num_beams": 3, "max_length": 12, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"do_sample": True, "num_return_sequences": 6, "seed": 1, "max_length": 15},
    ],
    ids=("greedy", "beam4", "beam5", "forced", "rules", "sample"),
)
def test_a_joint_score_is_the_likelihood_of_its_tokens(trained: Pair, search: dict[str, Any]) -> None:
    """`Generator.score` of an output is what the search had accumulated, posterior by posterior.

    Not for outputs of a single token: there transformers' loss, and so `score`, loses the documents' prior.
    """
    generator = trained.generator()
    contexts = trained.reference.contexts(trained.questions(3, 3), 4)
    options = full_options(**{"min_length": 4, **search}, marginalize="sequence", search="joint")
    checked = 0
    for question, hypotheses in enumerate(generator.generate(*contexts, options)):
        one = [array[question : question + 1] for array in contexts]
        for hypothesis in hypotheses:
            tokens = hypothesis.token_ids
            if len(tokens) < 2 or 1 in tokens:  # a pad inside counts nothing in transformers' loss
                continue
            labels = np.array([[2, *tokens]])
            score = generator.score(*one, labels, marginalize="sequence", exclude_bos_score=False)[0]
            assert hypothesis.score == pytest.approx(score, abs=TOLERANCE)
            assert hypothesis.log_prob == pytest.approx(score, abs=TOLERANCE)
            assert hypothesis.token_log_probs.sum() == pytest.approx(score, abs=TOLERANCE)
            checked += 1
    assert checked


@pytest.mark.parametrize(("max_length", "num_beams"), [(2, V), (3, V), (4, V * V)], ids=str)
def test_joint_finds_the_most_likely_output(toy: Toy, max_length: int, num_beams: int) -> None:
    """With a beam for every prefix there is: the true argmax, and the ranking after it, of all outputs."""
    options = GenerationOptions(
        eos_token_id=EOS, max_length=max_length, num_beams=num_beams, num_return_sequences=5,
        length_penalty=0.0, early_stopping="never", marginalize="sequence", search="joint",
    )  # fmt: skip
    for question, found in enumerate(toy.generator.generate(toy.ids, toy.mask, toy.doc_scores, options)):
        exact = {
            tokens: sequence_likelihood(toy.log_prior[question], log_probs)
            for tokens, log_probs in toy.outputs(question, max_length - 1).items()
        }
        assert np.logaddexp.reduce(list(exact.values())) == pytest.approx(0, abs=1e-6)
        best = sorted(exact, key=lambda tokens: -exact[tokens])[: len(found)]
        np.testing.assert_allclose(
            [h.score for h in found], [exact[tokens] for tokens in best], atol=TOLERANCE
        )
        assert len(found) == 5
        gaps = -np.diff([exact[tokens] for tokens in best])
        if gaps.min() > 1e-4:
            assert [tuple(h.token_ids.tolist()) for h in found] == best


def test_joint_is_never_below_thorough_where_it_is_exhaustive(toy: Toy) -> None:
    options = GenerationOptions(
        eos_token_id=EOS, max_length=4, num_beams=V * V, length_penalty=0.0, early_stopping="never",
        marginalize="sequence", search="joint",
    )  # fmt: skip
    joint = toy.generator.generate(toy.ids, toy.mask, toy.doc_scores, options)
    thorough = toy.generator.generate(
        toy.ids, toy.mask, toy.doc_scores, options.replace(search="thorough", num_beams=2)
    )
    for (ours,), (theirs,) in zip(joint, thorough, strict=True):
        assert ours.log_prob >= theirs.log_prob - TOLERANCE


@pytest.mark.parametrize(
    "search",
    [
        {"num_beams": 1, "max_length": 12},
        {"num_beams": 4, "max_length": 14, "length_penalty": 0.5},
        {"num_beams": 3, "max_length": 10, "early_stopping": True, "no_repeat_ngram_size": 2},
    ],
    ids=("greedy", "beam4", "rules"),
)
def test_fast_is_the_paper_s_definition(trained: Pair, search: dict[str, Any]) -> None:
    """Section 2.5: p(y|x) ≈ Σ_{z: y ∈ Y(z)} p(z|x) p(y|x,z), from HF's beams and HF's probabilities."""
    contexts = trained.reference.contexts(trained.questions(4, 2), 4)
    options = full_options(**search, marginalize="sequence", search="fast", num_return_sequences=16)
    fixed = {"forced_bos_token_id": None, "forced_eos_token_id": None}
    for question, found in enumerate(trained.generator().generate(*contexts, options)):
        one = [array[question : question + 1] for array in contexts]
        beams = trained.sequence_reference.document_beams(*one[:2], **search | fixed)
        prior = one[2][0].astype(np.float64)
        prior -= np.logaddexp.reduce(prior)
        exact: dict[tuple[int, ...], float] = {}
        for tokens in {tuple(y) for own in beams for y in own}:
            log_probs = trained.reference.document_log_probs(*one, list(tokens))  # [T, D]
            finders = [z for z, own in enumerate(beams) if list(tokens) in own]
            exact[tokens] = sequence_likelihood(prior[finders], log_probs[:, finders])
        ours = {tuple(h.token_ids.tolist()): h for h in found}
        assert ours.keys() == exact.keys()
        for tokens, hypothesis in ours.items():
            assert hypothesis.score == pytest.approx(exact[tokens], abs=TOLERANCE)
            finders = [tokens in map(tuple, own) for own in beams]
            np.testing.assert_allclose(hypothesis.token_posteriors.sum(axis=1), 1, atol=1e-5)
            assert not hypothesis.token_posteriors[:, np.logical_not(finders)].any()
        scores = [h.score for h in found]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_streamed_tokens_are_those_of_the_greedy_search(trained: Pair, marginalize: str) -> None:
    contexts = trained.reference.contexts(trained.questions(5, 1), 3)
    options = full_options(max_length=14, marginalize=marginalize, search="joint", no_repeat_ngram_size=2)
    generator = trained.generator()
    ((whole,),) = generator.generate(*contexts, options)
    tokens = list(generator.stream(*contexts, options))
    assert [token.token_id for token in tokens] == whole.token_ids.tolist()
    np.testing.assert_allclose([t.log_prob for t in tokens], whole.token_log_probs, atol=1e-5)
    np.testing.assert_allclose([t.posterior for t in tokens], whole.token_posteriors, atol=1e-5)
