"""The right numbers of a RAG-Token answer: transformers' model of the same weights in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragengine_bench.parity.reference import Reference


@dataclass(frozen=True)
class ExactTokens:
    """What float64 says of the tokens of one answer.

    log_probs   [T], log p(y_t | x, y_<t)
    posteriors  [T, D], p(z | x, y_<=t)
    """

    log_probs: NDArray[np.float64]
    posteriors: NDArray[np.float64]


def exact_tokens(
    reference: Reference, question: str, n_docs: int, token_ids: list[int], start_token: int | None = None
) -> ExactTokens:
    """What `question` and its `n_docs` documents make of `token_ids`, after the start token.

    The documents are found and scored in float32, as ever; the generator computes in float64.
    """
    ids, mask, doc_scores = reference.contexts([question], n_docs)
    scores = doc_scores.astype(np.float64)
    reference.model.double()
    try:
        by_document = reference.document_log_probs(ids, mask, scores, token_ids, start_token)
    finally:
        reference.model.float()  # which gives the weights back as they were
    joint = by_document + scores[0] - np.logaddexp.reduce(scores[0])
    log_probs = np.logaddexp.reduce(joint, axis=1)
    return ExactTokens(log_probs, np.exp(joint - log_probs[:, None]))
