"""Finished outputs of a search, and what is said about them."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.generation.mixture import Marginalize, token_log_probs, token_posteriors, token_weights
from ragengine.results import Hypothesis

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Output:
    """An output y with each token's probability under every document.

    token_ids int64 [T] without the start token; log_probs log p(y_t | x, z, y_<t), float32 [T, D].
    """

    token_ids: NDArray[np.int64]
    score: float
    log_probs: FloatArray


def hypothesis(output: Output, log_prior: FloatArray, marginalize: Marginalize) -> Hypothesis:
    """An output with log p(y | x) and posteriors; ``log_prior`` is log p(z | x), [D]."""
    weights = token_weights(log_prior, output.log_probs, marginalize)[:-1]
    token_scores = token_log_probs(weights, output.log_probs)
    return Hypothesis(
        token_ids=output.token_ids,
        score=output.score,
        log_prob=float(token_scores.sum(dtype=np.float64)),
        token_log_probs=token_scores,
        token_posteriors=token_posteriors(weights, output.log_probs),
    )
