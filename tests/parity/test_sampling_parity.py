"""Samples of outputs against exact probabilities: transformers' logits through transformers' warpers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from ragengine import GenerationOptions
from tests.support.toys import EOS, Toy, V, build_toy, sequence_likelihood

P_VALUE = 1e-4  # the seeds are fixed: a test that passes once passes always
Counts = dict[tuple[int, ...], float]
WARPERS: tuple[dict[str, Any], ...] = (
    {"top_k": 0},
    {"temperature": 0.6},
    {"temperature": 1.8, "top_k": 3},
    {"top_k": 0, "top_p": 0.8},
    {"top_k": 0, "typical_p": 0.7},
    {"top_k": 0, "epsilon_cutoff": 0.08},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.95, "typical_p": 0.9, "epsilon_cutoff": 0.02},
)
each_warper = pytest.mark.parametrize("warpers", WARPERS, ids=str)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return build_toy(3100, tmp_path_factory.mktemp("toy"))


def options(**changes: Any) -> GenerationOptions:
    return GenerationOptions(eos_token_id=EOS, max_length=3, do_sample=True, **changes)


def exact_probabilities(toy: Toy, warpers: dict[str, Any]) -> Counts:
    """RAG-Token's probability of each output of at most two tokens of question 0, under the warpers."""

    def following(prefixes: list[tuple[int, ...]]) -> np.ndarray:
        marginal = np.logaddexp.reduce(toy.next_log_probs(0, prefixes) + toy.log_prior[0][:, None], axis=1)
        return np.exp(toy.warped(marginal, **warpers))

    (first,) = following([()])
    second = following([(token,) for token in range(V)])
    both = {(a, b): float(first[a] * second[a, b]) for a in range(V) if a != EOS for b in range(V)}
    return both | {(EOS,): float(first[EOS])}


def assert_drawn_from(draws: list[tuple[int, ...]], exact: Counts) -> None:
    """Chi-square, rare outputs taken together; none that is impossible."""
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    counts = Counter(draws)
    assert all(exact[tokens] > 0 for tokens in counts)
    common = [tokens for tokens, p in exact.items() if p * len(draws) >= 5]
    expected = [exact[tokens] * len(draws) for tokens in common]
    found = [counts[tokens] for tokens in common]
    rest = len(draws) - sum(expected)
    if rest > 1:
        expected, found = [*expected, rest], [*found, len(draws) - sum(found)]
    else:
        expected = [value * sum(found) / sum(expected) for value in expected]
    assert len(found) > 1
    assert chisquare(found, np.array(expected) * sum(found) / sum(expected)).pvalue > P_VALUE


def outputs(toy: Toy, chosen: GenerationOptions, question: int = 0) -> list[tuple[int, ...]]:
    one = slice(question, question + 1)
    (found,) = toy.generator.generate(toy.ids[one], toy.mask[one], toy.doc_scores[one], chosen)
    return [tuple(hypothesis.token_ids.tolist()) for hypothesis in found]


@each_warper
def test_many_draws_at_once(toy: Toy, warpers: dict[str, Any]) -> None:
    draws = outputs(toy, options(**warpers, num_return_sequences=3000, seed=1))
    assert_drawn_from(draws, exact_probabilities(toy, warpers))


@each_warper
def test_a_draw_a_seed(toy: Toy, warpers: dict[str, Any]) -> None:
    """One beam fetches no more of the distribution than top_k leaves."""
    draws = [outputs(toy, options(**warpers, seed=seed))[0] for seed in range(500)]
    assert_drawn_from(draws, exact_probabilities(toy, warpers))


def test_rag_sequence_is_drawn_from_its_own_likelihood(toy: Toy) -> None:
    """Each draw carries its documents' posterior, so whole outputs have RAG-Sequence's probability."""
    chosen = options(top_k=0, marginalize="sequence", search="joint", num_return_sequences=3000, seed=2)
    exact = {
        tokens: float(np.exp(sequence_likelihood(toy.log_prior[0], log_probs)))
        for tokens, log_probs in toy.outputs(0, 2).items()
    }
    assert_drawn_from(outputs(toy, chosen), exact)


def transformers_draws(toy: Toy, count: int, **chosen: Any) -> list[tuple[int, ...]]:
    """The best output of each of `count` equal questions in one batch."""
    torch.manual_seed(0)
    rows = toy.model.generate(
        context_input_ids=torch.tensor(toy.ids[0]).repeat(count, 1),
        context_attention_mask=torch.tensor(toy.mask[0]).repeat(count, 1),
        doc_scores=torch.tensor(toy.doc_scores[:1]).repeat(count, 1),
        n_docs=toy.ids.shape[1],
        do_sample=True,
        max_length=3,
        eos_token_id=EOS,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        **chosen,
    )[:, 1:].tolist()
    return [(EOS,) if row[0] == EOS else tuple(row) for row in rows]


@pytest.mark.parametrize(
    "chosen",
    [
        {"num_beams": 1, "top_k": 4},
        {"num_beams": 2, "top_k": 0},
        {"num_beams": 2, "temperature": 2.5, "top_k": 0, "length_penalty": 0.5},
        {"num_beams": 2, "top_p": 0.9, "top_k": 0, "early_stopping": True},
    ],
    ids=str,
)
def test_samples_are_like_those_of_transformers(toy: Toy, chosen: dict[str, Any]) -> None:
    """Beam-sample too, whose outputs have no probability that could be written down."""
    theirs = Counter(transformers_draws(toy, 1500, **chosen))
    ours = Counter(outputs(toy, options(**chosen, seed=seed))[0] for seed in range(600))
    common = [tokens for tokens in theirs if theirs[tokens] + ours[tokens] >= 20]
    table = np.array([[counts[tokens] for tokens in common] for counts in (theirs, ours)])
    rest = np.array([[sum(counts.values())] for counts in (theirs, ours)]) - table.sum(axis=1, keepdims=True)
    if rest.sum() >= 20:
        table = np.hstack([table, rest])
    assert table.shape[1] > 2
    assert chi2_contingency(table).pvalue > P_VALUE


@pytest.mark.parametrize(
    "chosen",
    [
        {"num_return_sequences": 40},
        {"num_beams": 2, "temperature": 2.0},
        {"marginalize": "sequence", "num_return_sequences": 8},
        {"marginalize": "sequence", "search": "joint", "num_return_sequences": 40},
    ],
    ids=str,
)
def test_a_seed_gives_the_same_draws_again(toy: Toy, chosen: dict[str, Any]) -> None:
    several = range(6)
    first = [outputs(toy, options(**chosen, seed=seed)) for seed in several]
    assert first == [outputs(toy, options(**chosen, seed=seed)) for seed in several]
    assert any(first[0] != other for other in first[1:])
    # without a seed: few draws differ where one output is very probable, so draw until one does
    assert any(outputs(toy, options(**chosen)) != first[0] for _ in range(100))
