"""Candidates: ordering, padding with dead ones, and what rules take away or bring in.

Every rule beside transformers' logits processors is in test_rules.py.
"""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragengine import GenerationOptions
from ragengine.arrays import FloatArray
from ragengine.generation.decoders.base import StepInputs, StepOutputs
from ragengine.generation.search.candidates import DEAD, Candidates, probe_ids, ruled
from ragengine.generation.search.rules import Rules, StepRules, TokenSets
from tests.support.table_model import mixture

NO_RULES = StepRules(forced=None, banned=[[set()]], penalised=[[set()]], allowed=None)


def candidates(scores: list[float]) -> Candidates:
    count = len(scores)
    return Candidates(
        scores=np.array([scores], np.float32),
        beams=np.arange(count)[None],
        tokens=np.arange(count)[None] + 10,
        log_probs=np.arange(2 * count, dtype=np.float32).reshape(1, 2, count),
    )


@given(st.lists(st.integers(-4, 0), min_size=1, max_size=8), st.integers(1, 12))
def test_best_sorts_stably_and_fills_up_with_dead_ones(scores: list[int], count: int) -> None:
    found = candidates([float(score) for score in scores]).best(count)
    places = sorted(range(len(scores)), key=lambda place: -scores[place])[:count]
    alive = len(places)
    assert found.scores.shape == (1, count)
    assert found.beams[0, :alive].tolist() == places
    assert found.tokens[0, :alive].tolist() == [place + 10 for place in places]
    assert found.log_probs[0, 1, :alive].tolist() == [len(scores) + place for place in places]
    assert (found.scores[0, alive:] == DEAD).all()


def test_probes_are_as_wide_as_the_most_and_at_least_one() -> None:
    rules = StepRules(None, [[set(), set()]], [[{4, 3}, {9}]], None)
    assert probe_ids(rules, filler=2).tolist() == [[[3, 4], [9, 2]]]
    assert probe_ids(NO_RULES, filler=2).tolist() == [[[2]]]


def outputs_of(rules: StepRules, v: int = 6) -> tuple[StepOutputs, StepInputs]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 2, 1, v))
    log_probs = (logits - np.logaddexp.reduce(logits, axis=3, keepdims=True)).astype(np.float32)
    inputs = StepInputs(
        token_ids=np.array([[2]]),
        beam_indices=np.array([[0]]),
        log_weights=np.log(np.array([[[0.3], [0.7]]], np.float32)),
        beam_scores=np.array([[-1.5]], np.float32),
        num_candidates=3 + rules.margin,
        probe_ids=probe_ids(rules, filler=2),
    )
    return mixture(log_probs, inputs), inputs


def applied(rules: StepRules, penalty: float = 1.0) -> Candidates:
    outputs, inputs = outputs_of(rules)
    return ruled(outputs, rules, inputs.probe_ids, inputs.beam_scores, inputs.log_weights, penalty)


def test_without_rules_the_graphs_candidates_are_the_searchs() -> None:
    outputs, _ = outputs_of(NO_RULES)
    found = applied(NO_RULES)
    np.testing.assert_array_equal(found.scores, outputs.scores)
    np.testing.assert_array_equal(found.tokens, outputs.tokens)


def test_a_banned_token_is_dead_and_as_many_are_left() -> None:
    best = int(applied(NO_RULES).tokens[0, 0])
    rules = StepRules(None, [[{best}]], [[set()]], None)
    found = applied(rules).best(3)
    assert best not in found.tokens[0, np.isfinite(found.scores[0])]
    assert np.isfinite(found.scores).all()


def test_a_forced_token_costs_nothing_and_keeps_its_probabilities() -> None:
    rules = Rules(GenerationOptions(forced_bos_token_id=4)).at(np.array([[[2]]]))
    found = applied(rules)
    outputs, _ = outputs_of(rules)
    assert found.tokens.tolist() == [[4]]
    assert found.scores.tolist() == [[-1.5]]
    np.testing.assert_array_equal(found.log_probs, outputs.probe_log_probs[:, :, 0])


def test_a_penalised_token_comes_back_once_with_its_new_score() -> None:
    plain = applied(NO_RULES)
    best, score = int(plain.tokens[0, 0]), float(plain.scores[0, 0])
    found = applied(StepRules(None, [[set()]], [[{best}]], None), penalty=2.0)
    alive = np.isfinite(found.scores[0]) & (found.tokens[0] == best)
    assert found.scores[0, alive].tolist() == [np.float32((score + 1.5) * 2 - 1.5)]


Q, D, B, V, C = 2, 3, 2, 7, 4
SETS, FULL_SETS = (
    st.lists(st.lists(tokens, min_size=B, max_size=B), min_size=Q, max_size=Q)
    for tokens in (st.sets(st.integers(0, V - 1), min_size=least, max_size=3) for least in (0, 1))
)
NO_SETS: TokenSets = [[set() for _ in range(B)] for _ in range(Q)]
RULES = st.builds(
    StepRules, st.none(), st.just(NO_SETS) | SETS, st.just(NO_SETS) | SETS, st.none() | FULL_SETS
)
STUCK = st.builds(  # all that is allowed is banned, for one question or for both
    lambda allowed, rest: StepRules(None, [allowed[0], rest[1]], NO_SETS, allowed), FULL_SETS, SETS
)
FORCED = st.builds(StepRules, st.integers(0, V - 1), SETS, SETS, st.none() | FULL_SETS)


@given(rules=RULES | STUCK | FORCED, penalty=st.sampled_from([1.0, 1.7, 0.5]), seed=st.integers(0, 1 << 30))
def test_the_best_that_remain_are_those_of_every_continuation(
    rules: StepRules, penalty: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    log_probs = rng.normal(size=(Q, D, B, V)).astype(np.float32)  # nothing needs them normalised
    weights = rng.normal(size=(Q, D, B)).astype(np.float32)
    beam_scores = rng.normal(size=(Q, B)).astype(np.float32)
    probes = probe_ids(rules, filler=V - 1)
    inputs = StepInputs(
        token_ids=np.zeros((Q, B), np.int64),
        beam_indices=np.zeros((Q, B), np.int64),
        log_weights=weights,
        beam_scores=beam_scores,
        num_candidates=C + rules.margin,
        probe_ids=probes,
    )
    outputs = mixture(log_probs, inputs)
    found = ruled(outputs, rules, probes, beam_scores, weights, penalty).best(C)
    prices = np.logaddexp.reduce(log_probs + weights[..., None], axis=1)  # [Q, B, V]
    for question in range(Q):
        expected = best_of(question, prices[question], beam_scores[question], rules, penalty)
        alive = np.isfinite(found.scores[question])
        beams, tokens = found.beams[question, alive].tolist(), found.tokens[question, alive].tolist()
        assert list(zip(beams, tokens, strict=True)) == [(beam, token) for _, beam, token in expected]
        np.testing.assert_allclose(found.scores[question, alive], [one[0] for one in expected], atol=2e-6)
        np.testing.assert_array_equal(
            found.log_probs[question][:, alive], log_probs[question][:, beams, tokens]
        )


def best_of(
    question: int, prices: FloatArray, beam_scores: FloatArray, rules: StepRules, penalty: float
) -> list[tuple[float, int, int]]:
    """Score, beam and token of the best continuations of one question, by the rules' definitions."""
    left: list[tuple[float, int, int]] = []
    allowed = None if rules.allowed is None else rules.allowed[question]
    banned, penalised = rules.banned[question], rules.penalised[question]
    stuck = allowed is not None and all(allowed[beam] <= banned[beam] for beam in range(B))
    for beam, token in product(range(B), range(V)):
        price = float(prices[beam, token])
        if token in penalised[beam]:
            price = price * penalty if price < 0 else price / penalty
        if rules.forced is not None:
            price = 0.0 if token == rules.forced else -np.inf
        elif allowed is not None and token not in allowed[beam]:
            price = -np.inf
        elif stuck:
            price = 0.0
        elif token in banned[beam]:
            price = -np.inf
        if price > -np.inf:
            left.append((price + float(beam_scores[beam]), beam, token))
    return sorted(left, key=lambda one: (-one[0], one[1], one[2]))[:C]
