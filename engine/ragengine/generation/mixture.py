"""The probabilities of the paper, on the host: p(z|x), p(y_t|x,y_<t) and the documents' posterior.

The decoder graph sums over documents for all V tokens (`ragengine_export.graphs.mixture`); here are the
same formulas for the few tokens that were chosen.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.errors import InputError

FloatArray: TypeAlias = NDArray[np.float32]


def log_prior(doc_scores: FloatArray) -> FloatArray:
    """log p(z | x): the log-softmax of q(x)·d(z) over the retrieved documents (paper, section 2.2).

    float32 [Q, D] -> float32 [Q, D].  A score of -inf gives a document no weight; a question needs
    one finite score, and NaN or +inf is an error.
    """
    if np.isnan(doc_scores).any() or np.isposinf(doc_scores).any():
        raise InputError(
            "doc_scores contain NaN or +inf; they must be finite, or -inf to leave a document out."
        )
    if np.isneginf(doc_scores).all(axis=1).any():
        raise InputError(
            "Every doc_score of a question is -inf; at least one document must have a finite score."
        )
    return doc_scores - logsumexp(doc_scores, axis=1)[:, None]


def token_log_probs(log_weights: FloatArray, log_probs: FloatArray) -> FloatArray:
    """log p(y_t | x, y_<t) = log Σ_z p(z | x) p(y_t | x, z, y_<t)   (RAG-Token, paper section 2.1).

    log_weights [D], log_probs [T, D] -> [T].
    """
    return logsumexp(log_weights + log_probs, axis=-1)


def token_posteriors(log_weights: FloatArray, log_probs: FloatArray) -> FloatArray:
    """p(z | x, y_t, y_<t) = p(z | x) p(y_t | x, z, y_<t) / Σ_z' ..., by Bayes' rule at each token.

    log_weights [D], log_probs [T, D] -> [T, D]; rows sum to 1.
    """
    joint = log_weights + log_probs
    posteriors: FloatArray = np.exp(joint - logsumexp(joint, axis=-1)[:, None])
    return posteriors


def logsumexp(values: FloatArray, axis: int) -> FloatArray:
    """log Σ exp along ``axis``; -inf where every value is."""
    largest = values.max(axis=axis, keepdims=True)
    finite = np.where(np.isfinite(largest), largest, np.float32(0))
    with np.errstate(divide="ignore"):
        total: FloatArray = np.log(np.exp(values - finite).sum(axis=axis)) + finite.squeeze(axis)
    return total
