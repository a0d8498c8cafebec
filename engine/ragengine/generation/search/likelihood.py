"""log p(y | x) of given labels, as `get_nll` of transformers' two RAG classes (its negative).

``log_probs`` are log p(y_t | x, z, y_<t) of the target tokens, float32 [T, D]; ``targets`` int64 [T] are the
labels without the first, which the decoder reads and does not score.  Pads score nothing.
"""

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.generation.marginalization import Marginalize, logsumexp


def log_likelihoods(
    log_prior: FloatArray,
    log_probs: FloatArray,
    targets: IntArray,
    spec: GeneratorSpec,
    *,
    marginalize: Marginalize,
    exclude_bos_score: bool,
) -> FloatArray:
    """log p(y | x) of Q outputs: float32 [Q].

    log_prior [Q, D], log_probs [Q, T, D], targets [Q, T].  ``exclude_bos_score`` leaves a first BOS, where
    all targets have one, out of RAG-Sequence's score.
    """
    rows = zip(log_prior, log_probs, targets, strict=True)
    pad = spec.pad_token_id
    if marginalize == "token":
        found = [token_log_likelihood(prior, given, row, pad) for prior, given, row in rows]
    else:
        bos_first = targets.shape[1] > 0 and bool((targets[:, 0] == spec.bos_token_id).all())
        skip = exclude_bos_score and bos_first
        found = [
            sequence_log_likelihood(prior, given, row, pad, skip_first=skip) for prior, given, row in rows
        ]
    return np.array(found, np.float32)


def token_log_likelihood(log_prior: FloatArray, log_probs: FloatArray, targets: IntArray, pad: int) -> float:
    """Σ_t log Σ_z p(z | x) p(y_t | x, z, y_<t)   (`RagTokenForGeneration.get_nll`)."""
    marginal = logsumexp(log_prior + log_probs, axis=1)
    return float(marginal[targets != pad].sum())


def sequence_log_likelihood(
    log_prior: FloatArray, log_probs: FloatArray, targets: IntArray, pad: int, *, skip_first: bool
) -> float:
    """log Σ_z p(z | x) Π_t p(y_t | x, z, y_<t)   (`RagSequenceForGeneration.get_nll`).

    transformers adds the document's prior to the *second* target token: where that is a pad, or there is
    none, the prior is lost, and so it is here.  ``skip_first`` leaves the first target (BOS) out.
    """
    scored = targets != pad
    per_document = np.where(scored[:, None], log_probs, np.float32(0))
    if len(targets) > 1 and scored[1]:
        per_document = per_document.copy()
        per_document[1] += log_prior
    total = per_document[1 if skip_first else 0 :].sum(axis=0)
    # Even then a document that cannot be chosen counts nothing.
    return float(logsumexp(np.where(np.isneginf(log_prior), log_prior, total), axis=0))
