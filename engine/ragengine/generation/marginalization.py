"""The probabilities of the paper, on the host: p(z|x), p(y_t|x,y_<t) and the documents' posterior.

The decoder graph sums over documents for all V tokens (`ragengine_export.graphs.mixture`); here are the
same formulas for the few tokens that were chosen.
"""

from typing import Literal, TypeAlias

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.errors import InputError

Marginalize: TypeAlias = Literal["token", "sequence"]


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
    with np.errstate(over="ignore"):  # a difference beyond float32 is a prior of 0
        log_priors: FloatArray = doc_scores - logsumexp(doc_scores, axis=1)[:, None]
    return log_priors


def token_weights(log_prior: FloatArray, log_probs: FloatArray, marginalize: Marginalize) -> FloatArray:
    """The mixture's log-weights before each token: [T + 1, D], the last row after all of them.

    RAG-Token: log p(z | x) at every token.  RAG-Sequence: log p(z | x, y_<t), which the chain rule updates
    with each token; so p(y | x) = Σ_z p(z | x) Π_t p(y_t | x, z, y_<t) factors over tokens as well.
    log_prior is [D], log_probs log p(y_t | x, z, y_<t) [T, D].
    """
    if marginalize == "token":
        return np.repeat(log_prior[None], len(log_probs) + 1, axis=0)
    joint = np.concatenate([log_prior[None], log_prior + np.cumsum(log_probs, axis=0)])
    return joint - logsumexp(joint, axis=1)[:, None]


def beam_weights(log_prior: FloatArray, log_probs: FloatArray, marginalize: Marginalize) -> FloatArray:
    """The weights of :func:`token_weights` for the next token of every beam: [Q, D, B].

    log_prior is [Q, D], log_probs [Q, B, T, D].
    """
    num_beams = log_probs.shape[1]
    if marginalize == "token":
        return np.repeat(log_prior[:, :, None], num_beams, axis=2)
    joint = log_prior[:, None] + log_probs.sum(axis=2)  # [Q, B, D]
    weights: FloatArray = joint - logsumexp(joint, axis=2)[:, :, None]
    return weights.transpose(0, 2, 1)


def token_log_probs(log_weights: FloatArray, log_probs: FloatArray) -> FloatArray:
    """log p(y_t | x, y_<t) = log Σ_z weight(z) p(y_t | x, z, y_<t)   (paper, section 2.1): [T].

    log_weights and log_probs are [T, D].
    """
    return logsumexp(log_weights + log_probs, axis=-1)


def token_posteriors(log_weights: FloatArray, log_probs: FloatArray) -> FloatArray:
    """weight(z) p(y_t | x, z, y_<t) / Σ_z' ..., by Bayes' rule at each token: [T, D], rows sum to 1.

    RAG-Token: p(z | x, y_t, y_<t), which document this token came from; RAG-Sequence: p(z | x, y_<=t).
    """
    joint = log_weights + log_probs
    posteriors: FloatArray = np.exp(joint - logsumexp(joint, axis=-1)[:, None])
    return posteriors


def logsumexp(values: FloatArray, axis: int) -> FloatArray:
    """log Σ exp along ``axis``; -inf where every value is."""
    largest = values.max(axis=axis, keepdims=True)
    finite = np.where(np.isfinite(largest), largest, np.float32(0))
    with np.errstate(divide="ignore", over="ignore"):
        total: FloatArray = np.log(np.exp(values - finite).sum(axis=axis)) + finite.squeeze(axis)
    return total
