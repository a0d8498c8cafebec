"""`Generator.score` and `forward` against the training loss and the logits of both transformers classes."""

from __future__ import annotations

import numpy as np
import pytest

from ragengine import Generator
from ragengine.errors import InputError
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair

TOLERANCE = 1e-4
PAD, EOS, BOS = 1, 2, 0


@pytest.fixture(scope="module", params=range(1100, 1104), ids="seed{}".format)
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return build_pair(random_spec(request.param), tmp_path_factory.mktemp(f"score{request.param}"))


def labels_of(kind: str, rng: np.random.Generator, vocab_size: int) -> np.ndarray:
    """Labels [3, T], of which the decoder reads the first and none scores a pad."""
    labels = rng.integers(4, vocab_size, (3, 9))
    labels[:, 0] = (EOS, BOS, 9)
    labels[:, -1] = EOS
    if kind == "padded":
        labels[0, 5:], labels[1, 2:], labels[2, 8:] = PAD, PAD, PAD
    elif kind == "bos":
        labels[:, 1] = BOS
    elif kind == "one bos":
        labels[1, 1] = BOS
    elif kind == "pad inside":
        labels[0, 2], labels[1, 1], labels[2, 4] = PAD, PAD, PAD
    elif kind == "one token":
        labels = labels[:, [0, -1]]
    elif kind == "one bos token":
        labels = np.array([[EOS, BOS]] * 3)
    elif kind == "empty":
        labels = labels[:, :1]
    elif kind == "padding only":
        labels[:, 1:] = PAD
    return labels


KINDS = (
    "full", "padded", "bos", "one bos", "pad inside", "one token", "one bos token", "empty", "padding only"
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exclude", [None, False, True], ids="exclude_bos={}".format)
def test_score_is_minus_the_training_loss(scored: Pair, kind: str, exclude: bool | None) -> None:
    """Of both classes; `exclude` None is RAG-Token.

    The oddities are transformers' own. RAG-Sequence adds the prior at the second target, so an output of one
    token is scored as if every document had the prior 1, and an empty one at log D.
    """
    generator, n_docs = scored.generator(), 1 + scored.spec.seed % 4
    contexts = scored.reference.contexts(scored.questions(0, 3), n_docs)
    vocab_size = scored.reference.model.config.generator.vocab_size
    labels = labels_of(kind, np.random.default_rng(scored.spec.seed), vocab_size)
    if exclude is None:
        expected = -scored.reference.nll(*contexts, labels)
        ours = generator.score(*contexts, labels, marginalize="token")
    else:
        expected = -scored.sequence_reference.nll(*contexts, labels, exclude)
        ours = generator.score(*contexts, labels, marginalize="sequence", exclude_bos_score=exclude)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=1e-6)
    # The batch is scored as its rows are, but for BOS: transformers skips it if every row begins with it.
    if kind != "one bos":
        for row in range(3):
            one = slice(row, row + 1)
            alone = [array[one] for array in contexts]
            marginalize = "token" if exclude is None else "sequence"
            score = generator.score(*alone, labels[one], marginalize=marginalize, exclude_bos_score=exclude)
            np.testing.assert_allclose(score, ours[one], atol=2e-5)


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_forward_is_the_paper(scored: Pair, marginalize: str) -> None:
    """Per-document log-probabilities are HF's; the marginals and posteriors are made of them as defined."""
    contexts = scored.reference.contexts(scored.questions(1, 3), 3)
    vocab_size = scored.reference.model.config.generator.vocab_size
    labels = labels_of("full", np.random.default_rng(scored.spec.seed), vocab_size)
    labels[:, 0] = scored.reference.model.generation_config.decoder_start_token_id
    output = scored.generator().forward(*contexts, labels, marginalize=marginalize)
    prior = contexts[2].astype(np.float64)
    prior -= np.logaddexp.reduce(prior, axis=1, keepdims=True)
    np.testing.assert_allclose(output.log_prior, prior, atol=1e-5)
    for question, row in enumerate(labels.tolist()):
        own = [array[question : question + 1] for array in contexts]
        log_probs = scored.reference.document_log_probs(*own, row[1:])  # [T, D]
        np.testing.assert_allclose(output.document_log_probs[question], log_probs.T, atol=TOLERANCE)
        before = (
            np.vstack([np.zeros(3), np.cumsum(log_probs, axis=0)[:-1]]) if marginalize == "sequence" else 0
        )
        weights = prior[question] + before
        weights = weights - np.logaddexp.reduce(weights, axis=-1, keepdims=True)
        marginal = np.logaddexp.reduce(weights + log_probs, axis=1)
        np.testing.assert_allclose(output.log_probs[question], marginal, atol=TOLERANCE)
        posteriors = np.exp(weights + log_probs - marginal[:, None])
        np.testing.assert_allclose(output.posteriors[question], posteriors, atol=TOLERANCE)


def test_labels_that_do_not_fit_are_refused(scored: Pair) -> None:
    generator: Generator = scored.generator()
    contexts = scored.reference.contexts(scored.questions(0, 2), 2)
    for wrong in (np.zeros((2, 0), int), np.zeros((3, 4), int), np.zeros(4, int), np.zeros((2, 4))):
        with pytest.raises(InputError, match="labels is"):
            generator.score(*contexts, wrong)
    with pytest.raises(InputError, match="labels hold token"):
        generator.score(*contexts, np.full((2, 3), 10**6))
