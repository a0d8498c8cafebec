"""The paper's formulas on the host, against float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ragengine.errors import InputError
from ragengine.generation.marginalization import log_prior, logsumexp, token_log_probs, token_posteriors

SCORES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-90, 90, width=32)
)


@given(SCORES)
def test_priors_are_the_softmax_of_the_scores(scores: np.ndarray) -> None:
    exact = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_prior(scores)), exact, rtol=2e-4, atol=1e-30)


@given(SCORES, st.data())
def test_posteriors_are_bayes_rule_and_sum_to_one(log_probs: np.ndarray, data: st.DataObject) -> None:
    weights = data.draw(hnp.arrays(np.float32, log_probs.shape[1:], elements=st.floats(-20, 0, width=32)))
    posteriors = token_posteriors(weights, log_probs)
    joint = np.exp((weights + log_probs).astype(np.float64))
    np.testing.assert_allclose(posteriors, joint / joint.sum(axis=1, keepdims=True), rtol=3e-4, atol=1e-30)
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(token_log_probs(weights, log_probs), np.log(joint.sum(axis=1)), atol=1e-4)


def test_a_document_left_out_has_no_weight() -> None:
    prior = log_prior(np.array([[1.0, -np.inf, 1.0]], np.float32))
    assert np.exp(prior).tolist() == [[0.5, 0.0, 0.5]]
    assert np.isneginf(logsumexp(np.full((1, 2), -np.inf, np.float32), axis=1)).all()
    infinite = np.array([[np.inf, 1000.0]], np.float32)  # exp(1000) overflows, which is no warning
    assert np.isposinf(logsumexp(infinite, axis=1)).all()


def test_scores_that_are_far_apart_leave_one_document() -> None:
    """Their difference is beyond float32; that is no warning, but a prior of 0."""
    prior = log_prior(np.array([[3e38, -3e38]], np.float32))
    assert np.exp(prior).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    "scores", [[[np.nan, 1.0]], [[np.inf, 1.0]], [[-np.inf, -np.inf]], [[1.0, 1.0], [-np.inf, -np.inf]]]
)
def test_scores_that_give_no_distribution_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(InputError, match=r"doc_score"):
        log_prior(np.array(scores, np.float32))
