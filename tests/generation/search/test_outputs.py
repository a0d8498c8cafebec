"""What is said about an output: its likelihood, and which document each token came from."""

import math
from typing import Any

import numpy as np
import pytest

from ragengine.generation.search.outputs import Output, hypothesis, no_output
from tests.support.toys import sequence_likelihood, token_likelihood


@pytest.mark.parametrize(
    ("marginalize", "likelihood"), [("token", token_likelihood), ("sequence", sequence_likelihood)]
)
def test_a_hypothesis_has_the_papers_likelihood(marginalize: Any, likelihood: Any) -> None:
    rng = np.random.default_rng(0)
    log_prior = np.log(rng.dirichlet(np.ones(3))).astype(np.float32)
    log_probs = np.log(rng.uniform(0.1, 1, (5, 3))).astype(np.float32)
    found = hypothesis(Output(np.arange(5), -9.0, log_probs), log_prior, marginalize)
    assert found.score == -9.0
    assert found.log_prob == pytest.approx(likelihood(log_prior, log_probs), abs=1e-5)
    assert found.token_log_probs.sum() == pytest.approx(found.log_prob, abs=1e-5)
    np.testing.assert_allclose(found.token_posteriors.sum(axis=1), 1, rtol=1e-5)
    if marginalize == "sequence":  # after the last token: p(z | x, y)
        joint = np.exp(log_prior + log_probs.sum(axis=0))
        np.testing.assert_allclose(found.token_posteriors[-1], joint / joint.sum(), rtol=1e-4)
    else:
        joint = np.exp(log_prior + log_probs)
        np.testing.assert_allclose(
            found.token_posteriors, joint / joint.sum(axis=1, keepdims=True), rtol=1e-4
        )


def test_the_log_prob_of_a_long_output_is_summed_in_double_precision() -> None:
    log_probs = np.log(np.random.default_rng(1).uniform(0.1, 1, (1000, 1))).astype(np.float32)
    found = hypothesis(Output(np.arange(1000), 0.0, log_probs), np.zeros(1, np.float32), "token")
    assert found.log_prob == pytest.approx(math.fsum(found.token_log_probs.tolist()), rel=1e-12)


def test_no_output_names_the_question() -> None:
    assert "question 7" in str(no_output(7))
