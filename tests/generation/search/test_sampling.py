"""Warpers against those of transformers, draws against the probabilities that they leave."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import GenerationConfig

from ragengine import GenerationOptions
from ragengine.generation.search.candidates import DEAD, Candidates
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.sampling import Sampler, sample, warped
from ragengine.generation.search.step import SearchStep
from tests.generation.search.test_rules import MODEL
from tests.support.table_model import EOS, TableModel
from tests.support.toys import sequence_likelihood, token_likelihood

V = 12
P_VALUE = 1e-4  # the seeds are fixed: a test that passes once passes always
WARPERS: tuple[dict[str, Any], ...] = (
    {"top_k": 0},
    {"temperature": 0.6},
    {"temperature": 2.5, "top_k": 5},
    {"top_k": 1},
    {"top_k": 0, "top_p": 0.7},
    {"top_k": 8, "top_p": 0.4},
    {"top_k": 0, "typical_p": 0.5},
    {"top_k": 0, "epsilon_cutoff": 0.06},
    {"temperature": 1.4, "top_k": 9, "top_p": 0.9, "typical_p": 0.8, "epsilon_cutoff": 0.03},
)
each_warper = pytest.mark.parametrize("options", WARPERS, ids=str)


def transformers_warped(scores: np.ndarray, options: dict[str, Any], num_beams: int, eos: Any) -> np.ndarray:
    """Scores [N, V] after transformers' own warpers, in its order."""
    config = GenerationConfig(
        **options,
        do_sample=True,
        num_beams=num_beams,
        eos_token_id=eos,
        pad_token_id=1,
        max_length=9,
        decoder_start_token_id=2,
    )
    MODEL._prepare_special_tokens(config, True)
    processors = MODEL._get_logits_processor(config, input_ids_seq_length=1, device="cpu")
    result: np.ndarray = processors(torch.full((len(scores), 1), 2), torch.tensor(scores)).numpy()
    return result


def log_probs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    scores = rng.normal(scale=1.7, size=(*shape, V))
    return (scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)).astype(np.float32)


def candidates(scores: np.ndarray) -> Candidates:
    """All continuations of [Q, B, V], best first, as the graph ranks them."""
    q, b, v = scores.shape
    flat = scores.reshape(q, b * v)
    order = np.argsort(-flat, axis=1, kind="stable")
    return Candidates(
        scores=np.take_along_axis(flat, order, axis=1),
        beams=order // v,
        tokens=order % v,
        log_probs=np.take_along_axis(flat, order, axis=1)[:, None],
    )


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.3, 1.0, 1.7]),
    st.integers(0, V + 2),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.01, 0.2, 0.9]),
    st.integers(1, 2),
    st.sampled_from([2, [2, 3]]),
)
def test_warpers_are_those_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, typical_p: float, epsilon: float,
    beams: int, eos: Any,
) -> None:  # fmt: skip
    options = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "typical_p": typical_p,
        "epsilon_cutoff": epsilon,
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    scores = log_probs(rng, 3)
    scores[:, rng.integers(0, V, 2)] = -np.inf  # banned tokens
    ours = warped(scores[None], GenerationOptions(**options, num_beams=beams, eos_token_id=eos))
    theirs = transformers_warped(scores, options, beams, eos)[None]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"epsilon_cutoff": 0.25}, [True, True, False, False]),
        ({"top_p": 0.5}, [True, False, False, False]),
        ({"top_p": 0.75}, [True, True, False, False]),
        ({"typical_p": 0.25}, [False, True, False, False]),
        ({"typical_p": 0.75}, [True, True, False, False]),
    ],
    ids=str,
)
def test_probabilities_exactly_at_a_limit(options: dict[str, Any], kept: list[bool]) -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.125, 0.125]], np.float32))
    options["top_k"] = 0
    for found in (warped(scores, GenerationOptions(**options)), transformers_warped(scores, options, 1, 2)):
        assert np.isfinite(found).tolist() == [kept]


def test_a_large_vocabulary_keeps_the_most_probable() -> None:
    rng = np.random.default_rng(11)
    scores = rng.normal(size=(1, 60, 3000)).astype(np.float32)
    for top_k in (1, 40, 1500):
        kept = np.isfinite(warped(scores, GenerationOptions(top_k=top_k)))
        np.testing.assert_array_equal(kept, scores >= np.sort(scores, axis=-1)[..., -top_k, None])


@pytest.mark.parametrize("typical_p", [0.99, 1 - 1e-9])
def test_a_mass_that_only_all_tokens_have_keeps_all(typical_p: float) -> None:
    """Also where the sum of their probabilities, rounded, is less than 1."""
    scores = log_probs(np.random.default_rng(12), 300)
    scores[0] = np.log([0.3, 0.2, 0.1, *[0.05] * 5, 0.04, 0.035, 0.045, 0.03])
    options = {"top_k": 0, "typical_p": typical_p}
    ours = warped(scores[None], GenerationOptions(**options))[0]
    assert np.isfinite(ours[0]).all()
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(transformers_warped(scores, options, 1, 2)))


def test_settings_that_are_off_leave_the_least_probable_tokens() -> None:
    """Whose probabilities the sum of the others, rounded, leaves no room for."""
    scores = np.array([[0, -18, -40, -80, -200], [-18, -18, -18, -40, 0]], np.float32)
    for beams in (1, 2):
        np.testing.assert_array_equal(warped(scores, GenerationOptions(top_k=0, num_beams=beams)), scores)


def test_as_many_candidates_are_fetched_as_the_draws_depend_on() -> None:
    def needed(top_k: int, num_beams: int) -> int:
        return Sampler(GenerationOptions(do_sample=True, top_k=top_k), 1, V).needed(num_beams)

    assert [needed(top_k, 1) for top_k in (0, 1, 2, 5, V, V + 3)] == [V, 2, 2, 5, V, V]
    assert [needed(top_k, 2) for top_k in (0, 1, 5, 2 * V)] == [2 * V] * 4


@each_warper
def test_draws_have_the_probabilities_that_transformers_leaves(options: dict[str, Any]) -> None:
    """One beam, fetching only what is needed, and several, each a draw of its own."""
    scores = log_probs(np.random.default_rng(3), 1)
    expected = np.exp(transformers_warped(scores, options, 1, 2)[0].astype(np.float64))
    expected /= expected.sum()
    chosen = GenerationOptions(**options, do_sample=True, eos_token_id=2, seed=5, num_return_sequences=4)
    alone, together = Sampler(chosen, 1, V), Sampler(chosen, 1, V)
    best = candidates(scores[None]).best(alone.needed(1))
    four, zeros = candidates(scores[None].repeat(4, axis=1)), np.zeros((1, 4), np.float32)
    one = [int(alone.one_per_beam(best, zeros[:, :1]).tokens[0, 0]) for _ in range(6000)]
    many = [together.one_per_beam(four, zeros).tokens[0].tolist() for _ in range(1500)]
    for draws in (one, [token for row in many for token in row]):
        counts = np.bincount(draws, minlength=V)
        assert counts[expected == 0].sum() == 0
        possible = expected > 0
        if possible.sum() > 1:
            assert chisquare(counts[possible], expected[possible] * len(draws)).pvalue > P_VALUE


def test_beam_draws_are_without_replacement_from_all_beams() -> None:
    """`torch.multinomial`'s two draws over [B * V], p_i p_j / (1 - p_i), the better one first."""
    scores, beam_scores = log_probs(np.random.default_rng(4), 1, 2), np.array([[-1.0, -1.6]], np.float32)
    sampler = Sampler(GenerationOptions(do_sample=True, num_beams=2, top_k=3, eos_token_id=2, seed=1), 1, V)
    both = candidates(scores + beam_scores[..., None])
    drawn = [sampler.drawn(both, beam_scores, 2) for _ in range(20000)]
    warp = transformers_warped(scores[0], {"top_k": 3}, 2, 2) + beam_scores[0, :, None]
    p = np.exp(warp.ravel().astype(np.float64))
    p /= p.sum()
    with np.errstate(invalid="ignore"):
        pairs = np.outer(p, p) / (1 - p[:, None]) * (1 - np.eye(len(p)))
    pairs = np.where(p[:, None] > p, pairs + pairs.T, 0)
    counts = np.zeros_like(pairs)
    for d in drawn:
        first, second = (d.beams[0] * V + d.tokens[0]).tolist()
        counts[first, second] += 1
    assert counts[pairs == 0].sum() == 0
    assert chisquare(counts[pairs > 0], pairs[pairs > 0] * len(drawn)).pvalue > P_VALUE
    np.testing.assert_allclose(drawn[0].scores[0], warp[drawn[0].beams[0], drawn[0].tokens[0]], rtol=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_token_s_luck_depends_on_the_seed_alone(num_beams: int) -> None:
    """Not on neighbours, the candidates fetched for their sake, or the order of the candidates."""
    rng = np.random.default_rng(6)
    scores = log_probs(rng, 2, num_beams)
    options = GenerationOptions(do_sample=True, num_beams=num_beams, top_k=4, eos_token_id=2, seed=9)
    zeros = np.zeros((2, num_beams), np.float32)
    everything = candidates(scores)
    few = everything if num_beams > 1 else everything.best(4)
    shuffled = everything.take(np.stack([rng.permutation(everything.scores.shape[1]) for _ in range(2)]))
    one = slice(1, 2)
    alone = Candidates(few.scores[one], few.beams[one], few.tokens[one], few.log_probs[one])
    samplers = [Sampler(options, n, V) for n in (2, 2, 1)]
    for _ in range(50):
        whole, mixed, single = (
            sampler.drawn(given, zeros[: len(given.scores)], 3)
            for sampler, given in zip(samplers, (everything, shuffled, alone), strict=True)
        )
        np.testing.assert_array_equal(whole.tokens, mixed.tokens)
        np.testing.assert_array_equal(whole.beams[1], single.beams[0])
        np.testing.assert_array_equal(whole.tokens[1], single.tokens[0])


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_draw_s_score_is_the_beam_s_and_the_warped_log_probability(num_beams: int) -> None:
    warping = {"temperature": 1.5, "top_k": 5}
    scores = log_probs(np.random.default_rng(8), 1, num_beams)
    beam_scores = np.array([[-1.0, -1.6][:num_beams]], np.float32)
    options = GenerationOptions(do_sample=True, num_beams=num_beams, eos_token_id=2, seed=2, **warping)
    drawn = Sampler(options, 1, V).drawn(candidates(scores + beam_scores[..., None]), beam_scores, 3)
    warp = transformers_warped(scores[0], warping, num_beams, 2) + beam_scores[0, :, None]
    np.testing.assert_allclose(drawn.scores[0], warp[drawn.beams[0], drawn.tokens[0]], rtol=1e-5)
    assert (np.diff(drawn.scores[0]) <= 0).all()


@pytest.mark.parametrize("options", [*WARPERS, {"typical_p": 0.9}], ids=str)
def test_a_beam_that_the_rules_leave_nothing_draws_nothing(options: dict[str, Any]) -> None:
    """The others draw as ever, of several beams and of several questions with one each."""
    scores = log_probs(np.random.default_rng(9), 1, 3)
    scores[:, 1] = DEAD
    for one in (scores, scores.transpose(1, 0, 2)):  # three beams, three questions
        zeros = np.zeros(one.shape[:2], np.float32)
        sampler = Sampler(GenerationOptions(do_sample=True, seed=3, **options), len(one), V)
        found = sampler.one_per_beam(candidates(one), zeros).scores.ravel()
        assert np.isfinite(found).tolist() == [True, False, True]


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_outputs_are_drawn_with_their_likelihood(marginalize: Any) -> None:
    """And have it as their score, over the length to the power of the penalty."""
    model, longest, counts = TableModel(2, q=1), 3, Counter[tuple[int, ...]]()
    likelihood = token_likelihood if marginalize == "token" else sequence_likelihood
    log_probs = {
        output: likelihood(model.log_prior[0], by_document)
        for output, by_document in model.outputs(0, longest).items()
    }
    for seed in range(12):
        options = GenerationOptions(
            do_sample=True, top_k=0, seed=seed, num_return_sequences=250, length_penalty=2.0,
            marginalize=marginalize, search="joint", eos_token_id=EOS, max_length=longest + 1,
        )  # fmt: skip
        step = SearchStep(model, model.encoded, model.log_prior, Rules(options))
        (found,) = sample(step)
        for output in found:
            tokens = tuple(output.token_ids.tolist())
            assert output.score == pytest.approx(log_probs[tokens] / len(tokens) ** 2, abs=1e-5)
            counts[tokens] += 1
    expected = {output: counts.total() * np.exp(log_prob) for output, log_prob in log_probs.items()}
    frequent = [output for output in expected if expected[output] > 5]
    seen = [counts[output] for output in frequent]
    wanted = [expected[output] for output in frequent]
    rest = counts.total() - sum(seen), counts.total() - sum(wanted)
    assert len(frequent) > 15
    assert chisquare([*seen, rest[0]], [*wanted, rest[1]]).pvalue > P_VALUE


def test_nothing_is_read_after_the_last_output_has_ended() -> None:
    for seed in range(6):
        model = TableModel(seed)
        options = GenerationOptions(do_sample=True, seed=seed, eos_token_id=EOS, max_length=60)
        step = SearchStep(model, model.encoded, model.log_prior, Rules(options))
        assert len(model.steps) == 0
        assert max(len(output.token_ids) for (output,) in sample(step)) == len(model.steps) < 59


def test_seeds() -> None:
    scores, zeros = candidates(log_probs(np.random.default_rng(7), 1, 1)), np.zeros((1, 1), np.float32)

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(GenerationOptions(do_sample=True, top_k=0, seed=seed), 1, V)
        return [int(sampler.one_per_beam(scores, zeros).tokens[0, 0]) for _ in range(40)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(None) != draws(None)
