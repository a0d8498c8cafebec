"""What an answer's numbers and texts say of whether it is right: features of a calibrated model.

Everything comes from the answer itself: no model is run again.
"""

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.confidence.rarity import Rarity
from ragengine.grounding.words import folded_words
from ragengine.results import Answer, Hypothesis

LOWEST = -20.0
"""Nats: what is less probable counts as e^-20."""

FEATURES = {
    "log_prob": "log p(y|x)",
    "min_token_log_prob": "the least log p(y_t|x, y_<t) of a token",
    "margin": "log p(y|x) less that of the next hypothesis",
    "tokens": "log of the number of tokens",
    "best_score": "the best document's score q(x)·d(z)",
    "score_gap": "the best score less the mean of the others",
    "prior_entropy": "entropy of p(z|x), in nats",
    "posterior_entropy": "entropy of the documents' shares of the answer, in nats",
    "log_prob_of_main": "log p(y|x, z) under the document with the largest share, the main one",
    "drop_without_main": "log p(y|x) less that of the other documents alone",
    "copied_from_main": "share of the answer's words that the main document has",
    "span_posterior": "shares of the documents that have the answer's words in one run",
    "span_share": "share of the documents that do",
    "repeats_question": "share of the answer's words that are the question's",
    "missing_in_main": "rarity of the question's words that the main document lacks, of all",
    "rarest_missing_in_main": "rarity of the rarest of them",
    "missing": "rarity of the question's words that every document lacks, of all",
    "rarest_missing": "rarity of the rarest of them",
}
"""The features by name, in the order of the vector."""


def features(answer: Answer, rarity: Rarity) -> DoubleArray:
    """The features of an answer, float64 [F] in the order of :data:`FEATURES`; all are finite.

    Args:
        answer: an answer with documents that have scores; a second hypothesis gives ``margin``, else 0.
        rarity: the weights of words.
    """
    best, shares = answer.hypotheses[0], answer.document_shares.astype(np.float64)
    priors = np.array([document.prior or 0.0 for document in answer.documents])
    scores = np.array([max(document.score or 0.0, -1e30) for document in answer.documents])
    alone = document_log_probs(best, priors, answer.options.marginalize)
    main = int(shares.argmax())
    others = np.delete(scores, scores.argmax())
    log_prob = max(best.log_prob, LOWEST)
    values = {
        "log_prob": log_prob,
        "min_token_log_prob": max(float(best.token_log_probs.min()), LOWEST),
        "margin": _margin(answer),
        "tokens": np.log(len(best.token_ids)),
        "best_score": scores.max(),
        "score_gap": min(scores.max() - others.mean(), 1e6) if len(others) else 0.0,
        "prior_entropy": _entropy(priors),
        "posterior_entropy": _entropy(shares),
        "log_prob_of_main": max(alone[:, main].sum(), LOWEST),
        "drop_without_main": log_prob - _without(alone, priors, main, answer.options.marginalize),
        **_words(answer, shares, main, rarity),
    }
    return np.array([float(values[name]) for name in FEATURES])


def document_log_probs(hypothesis: Hypothesis, priors: DoubleArray, marginalize: str) -> DoubleArray:
    """log p(y_t | x, z, y_<t) of every token under every document, [T, D], from posteriors by Bayes' rule.

    RAG-Token:     p(y_t | x, z, y_<t) = p(z | x, y_t, y_<t) p(y_t | x, y_<t) / p(z | x)
    RAG-Sequence:  p(y_<=t | x, z) = p(z | x, y_<=t) p(y_<=t | x) / p(z | x), of which each row is the growth

    Posteriors are float32, so what is under e^-20 is cut off there.
    """
    with np.errstate(divide="ignore"):
        log_posteriors = np.log(hypothesis.token_posteriors.astype(np.float64))
        log_priors = np.log(priors.astype(np.float64))
    tokens = hypothesis.token_log_probs.astype(np.float64)[:, None]
    possible = np.isfinite(log_priors)
    log_priors = np.where(possible, log_priors, 0.0)
    if marginalize == "sequence":
        joint = np.clip(log_posteriors + np.cumsum(tokens, axis=0) - log_priors, LOWEST, 0.0)
        rows = np.diff(joint, axis=0, prepend=np.zeros((1, joint.shape[1])))
    else:
        rows = log_posteriors + tokens - log_priors
    found: DoubleArray = np.where(possible, np.clip(rows, LOWEST, 0.0), LOWEST)
    return found


def _without(alone: DoubleArray, priors: DoubleArray, main: int, marginalize: str) -> float:
    """log p(y | x) of the documents but ``main``, their priors normalised anew; the lowest if it is alone."""
    rest = np.delete(priors, main)
    if rest.sum() <= 0:
        return LOWEST
    weights, others = rest / rest.sum(), np.delete(alone, main, axis=1)
    if marginalize == "sequence":
        total = np.log(weights @ np.exp(np.maximum(others.sum(axis=0), 5 * LOWEST)))
    else:
        total = np.log(np.exp(others) @ weights).sum()
    return max(float(total), LOWEST)


def _margin(answer: Answer) -> float:
    if len(answer.hypotheses) < 2:
        return 0.0
    first, second = (max(found.log_prob, LOWEST) for found in answer.hypotheses[:2])
    return first - second


def _words(answer: Answer, shares: DoubleArray, main: int, rarity: Rarity) -> dict[str, float]:
    """The features that compare words."""
    said, asked = folded_words(answer.text), dict.fromkeys(folded_words(answer.question))
    read = [[*folded_words(document.title), *folded_words(document.text)] for document in answer.documents]
    known = [set(words) for words in read]
    run = f" {' '.join(said)} "
    spans = np.array([bool(said) and run in f" {' '.join(words)} " for words in read])
    weights = {word: rarity.weight(word) for word in asked}
    total = sum(weights.values()) or 1.0
    anywhere = set[str]().union(*known)
    # In the question's order: a set's is another one in each process, and so would be the last bit of a sum.
    in_main, in_none = (
        [weight for word, weight in weights.items() if word not in have] for have in (known[main], anywhere)
    )
    return {
        "copied_from_main": _share(said, known[main]),
        "span_posterior": float(shares @ spans),
        "span_share": float(spans.mean()),
        "repeats_question": _share(said, set(asked)),
        "missing_in_main": sum(in_main) / total,
        "rarest_missing_in_main": max(in_main, default=0.0),
        "missing": sum(in_none) / total,
        "rarest_missing": max(in_none, default=0.0),
    }


def _share(words: list[str], known: set[str]) -> float:
    return sum(word in known for word in words) / len(words) if words else 0.0


def _entropy(shares: DoubleArray) -> float:
    positive = shares[shares > 0]
    return max(0.0, float(-(positive * np.log(positive)).sum()))
