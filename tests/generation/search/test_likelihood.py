"""Likelihoods of given labels against the paper's sums in float64; transformers' own are in tests/parity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.bundle.manifest import GeneratorSpec
from ragengine.generation.search.likelihood import (
    log_likelihoods,
    sequence_log_likelihood,
    token_log_likelihood,
)
from tests.support.table_model import BOS, PAD, TableModel
from tests.support.toys import sequence_likelihood, token_likelihood

SPEC: GeneratorSpec = TableModel().spec


def drawn(seed: int, t: int = 4, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(d))
    log_probs = np.log(rng.uniform(0.01, 1, (t, d)))
    return np.log(prior).astype(np.float32), log_probs.astype(np.float32), rng.integers(3, 9, t)


@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 4))
def test_both_are_the_papers_sums(seed: int, t: int, d: int) -> None:
    log_prior, log_probs, targets = drawn(seed, t, d)
    exact = token_likelihood(log_prior.astype(float), log_probs.astype(float))
    assert token_log_likelihood(log_prior, log_probs, targets, PAD) == pytest.approx(exact, abs=1e-4)
    exact = sequence_likelihood(log_prior.astype(float), log_probs.astype(float))
    found = sequence_log_likelihood(log_prior, log_probs, targets, PAD, skip_first=False)
    assert found == pytest.approx(exact, abs=1e-4)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_pads_at_the_end_score_nothing(seed: int, pads: int) -> None:
    log_prior, log_probs, targets = drawn(seed)
    longer = np.concatenate([log_probs, np.full((pads, 3), -7, np.float32)])
    padded = np.concatenate([targets, np.full(pads, PAD)])
    for score in (
        token_log_likelihood,
        lambda *args: sequence_log_likelihood(*args, skip_first=False),
    ):
        assert score(log_prior, longer, padded, PAD) == score(log_prior, log_probs, targets, PAD)


def test_the_prior_counts_at_the_second_target_alone() -> None:
    """As in transformers: an output of one token, or a pad in the second place, loses it."""
    log_prior, log_probs, targets = drawn(1)
    one = sequence_log_likelihood(log_prior, log_probs[:1], targets[:1], PAD, skip_first=False)
    assert one == pytest.approx(np.logaddexp.reduce(log_probs[0]))
    targets[1] = PAD
    lost = sequence_log_likelihood(log_prior, log_probs, targets, PAD, skip_first=False)
    assert lost == pytest.approx(np.logaddexp.reduce(log_probs[[0, 2, 3]].sum(axis=0)))


def test_bos_is_left_out_where_all_begin_with_it() -> None:
    rows = [drawn(seed) for seed in range(2)]
    log_prior, log_probs, targets = (np.stack(arrays) for arrays in zip(*rows, strict=True))
    targets[0, 0] = BOS

    def scores(exclude: bool) -> np.ndarray:
        return log_likelihoods(
            log_prior, log_probs, targets, SPEC, marginalize="sequence", exclude_bos_score=exclude
        )

    np.testing.assert_array_equal(scores(True), scores(False))  # one row alone has a BOS
    targets[1, 0] = BOS
    without = [
        np.logaddexp.reduce(prior + given[1:].sum(axis=0))
        for prior, given in zip(log_prior, log_probs, strict=True)
    ]
    np.testing.assert_allclose(scores(True), without, rtol=1e-5)
    assert (scores(False) < scores(True)).all()


@pytest.mark.parametrize("count", [0, 1])
def test_where_no_target_is_scored_each_document_counts_once(count: int) -> None:
    """As in transformers: one label is no target, and one target that is BOS is left out."""
    log_prior, log_probs, targets = drawn(3)
    targets[0] = BOS
    rows = log_prior[None], log_probs[None, :count], targets[None, :count]
    found = log_likelihoods(*rows, SPEC, marginalize="sequence", exclude_bos_score=True)
    assert found == pytest.approx([np.log(3)])
    if count == 0:
        np.testing.assert_array_equal(
            log_likelihoods(*rows, SPEC, marginalize="token", exclude_bos_score=True), [0]
        )


def test_a_document_left_out_counts_nothing() -> None:
    log_prior, log_probs, targets = drawn(2)
    log_prior[0] = -np.inf
    found = sequence_log_likelihood(log_prior, log_probs, targets, PAD, skip_first=False)
    rest = sequence_log_likelihood(log_prior[1:], log_probs[:, 1:], targets, PAD, skip_first=False)
    assert found == pytest.approx(rest)
