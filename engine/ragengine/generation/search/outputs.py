"""Finished outputs of a search, and what is said about them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray
from ragengine.errors import OptionsError
from ragengine.generation.marginalization import Marginalize, token_log_probs, token_posteriors, token_weights
from ragengine.results import Hypothesis


@dataclass(frozen=True, eq=False)
class Output:
    """An output y with each token's probability under every document.

    token_ids int64 [T] without the start token; log_probs log p(y_t | x, z, y_<t), float32 [T, D].
    """

    token_ids: NDArray[np.int64]
    score: float
    log_probs: FloatArray


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """Log-probabilities of given labels, what `RetrievAugLMMarginOutput` gives a researcher.

    log_prior           float32 [Q, D]     log p(z | x)
    document_log_probs  float32 [Q, D, T]  log p(y_t | x, z, y_<t)
    log_probs           float32 [Q, T]     log p(y_t | x, y_<t) of the model that was asked for
    posteriors          float32 [Q, T, D]

    T counts the labels without the first, which the decoder only reads.
    """

    log_prior: FloatArray
    document_log_probs: FloatArray
    log_probs: FloatArray
    posteriors: FloatArray


@dataclass(frozen=True, eq=False)
class StreamedToken:
    """One token of a running search: its id, log p(y_t | x, y_<t), and its posterior, float32 [D].

    ``score`` is that of the output if it ends here, as :attr:`Hypothesis.score`.
    """

    token_id: int
    log_prob: float
    posterior: FloatArray
    score: float


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


def no_output(question: int) -> OptionsError:
    """The error of a search whose rules left nothing."""
    return OptionsError(
        f"The options leave no output for question {question}: at some step every token was banned; loosen "
        "suppress_tokens, bad_words_ids, the n-gram rules or allowed tokens."
    )
