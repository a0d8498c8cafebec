"""What an answer says about where it came from, and which documents are not read."""

import json

import numpy as np
import pytest

from ragengine import Document
from ragengine.errors import InputError, OptionsError
from ragengine.results import document_shares, posterior_entropy
from ragengine_bench.parity.pairs import Pair

KINDS = ("token", "sequence")
ASKED = "where is Quito?"


@pytest.mark.parametrize("marginalize", KINDS)
def test_provenance_follows_from_the_posteriors(pair: Pair, marginalize: str) -> None:
    answer = pair.engine.generate(
        ASKED, n_docs=4, num_beams=2, max_length=9, marginalize=marginalize, search="joint"
    )
    posteriors = answer.token_posteriors
    expected = posteriors[-1] if marginalize == "sequence" else posteriors.mean(axis=0)
    np.testing.assert_allclose(answer.document_shares, expected, atol=1e-6)
    assert [d.posterior for d in answer.documents] == pytest.approx(answer.document_shares.tolist())
    assert answer.document_shares.sum() == pytest.approx(1, abs=1e-5)
    assert answer.posterior_entropy.shape == answer.token_log_probs.shape == (len(answer.tokens),)
    np.testing.assert_allclose(
        answer.posterior_entropy, -(posteriors * np.log(posteriors)).sum(axis=1), atol=1e-5
    )
    assert answer.log_prob == pytest.approx(float(answer.token_log_probs.sum()), abs=1e-4)
    trained_for_the_other = marginalize == "sequence"  # the checkpoint is a RagTokenForGeneration
    assert ("trained_for_token" in answer.flags) == trained_for_the_other
    assert "trained_for_sequence" not in answer.flags


def test_entropy_is_0_for_one_document_and_log_d_for_all_alike() -> None:
    posteriors = np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32)
    assert posterior_entropy(posteriors).tolist() == pytest.approx([0, np.log(4)])
    assert document_shares(posteriors, "token").tolist() == pytest.approx([0.625, 0.125, 0.125, 0.125])
    assert document_shares(posteriors, "sequence").tolist() == pytest.approx([0.25] * 4)


def test_the_length_limit_is_flagged_where_it_ended_the_answer(pair: Pair) -> None:
    whole = pair.engine.generate(ASKED, forced_eos_token_id=None, max_length=60, min_length=6)
    length = len(whole.hypotheses[0].token_ids)
    if "max_length_reached" not in whole.flags:  # it ended by itself: with the same room it still does
        same = pair.engine.generate(ASKED, forced_eos_token_id=None, max_length=length + 1, min_length=6)
        assert same.hypotheses[0].token_ids.tolist() == whole.hypotheses[0].token_ids.tolist()
        assert "max_length_reached" not in same.flags
    for forced in (None, 2):
        cut = pair.engine.generate(ASKED, forced_eos_token_id=forced, max_length=5, min_length=4)
        ended = float(cut.token_log_probs[-1]) >= np.log(0.5) and cut.hypotheses[0].token_ids[-1] == 2
        assert ("max_length_reached" in cut.flags) == (len(cut.tokens) == 4 and not ended)
    unlikely = pair.engine.generate(ASKED, forced_eos_token_id=77, eos_token_id=77, max_length=4)
    assert unlikely.hypotheses[0].token_ids[-1] == 77
    assert "max_length_reached" in unlikely.flags


def test_a_score_of_minus_infinity_is_still_json(pair: Pair) -> None:
    own = [Document("Kyoto", "a city", score=1.0), Document("Quito", "a capital", score=float("-inf"))]
    answer = pair.engine.generate("Where?", documents=own, max_length=6)
    content = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert [d["doc_score"] for d in content["documents"]] == [1.0, None]
    assert [d["prior"] for d in content["documents"]] == [1.0, 0.0]


def test_options_that_ban_every_token_are_one_clear_error(pair: Pair) -> None:
    vocabulary = range(pair.engine.bundle.manifest.generator.vocab_size)
    with pytest.raises(OptionsError, match="leave no output"):
        pair.engine.generate(
            ASKED, suppress_tokens=list(vocabulary), forced_bos_token_id=None, forced_eos_token_id=None
        )


def test_pruned_documents_are_not_read_and_the_answer_says_so(pair: Pair) -> None:
    every = pair.engine.retrieve(ASKED, n_docs=6)
    priors = [document.prior or 0.0 for document in every]
    threshold = (sorted(priors)[2] + sorted(priors)[3]) / 2
    answer = pair.engine.generate(ASKED, n_docs=6, doc_pruning=threshold, max_length=9)
    assert len(answer.documents) == answer.pruned_documents == 3
    assert "documents_pruned" in answer.flags
    assert "fewer_documents" not in answer.flags
    assert [d.id for d in answer.pruned] == [d.id for d in every if (d.prior or 0) < threshold]
    assert answer.pruned_mass == pytest.approx(sum(p for p in priors if p < threshold), abs=1e-6)
    assert sum(d.prior or 0 for d in answer.documents) == pytest.approx(1, abs=1e-5)
    alone = pair.engine.generate(ASKED, documents=every[:3], n_docs=3, max_length=9)
    assert alone.hypotheses[0].token_ids.tolist() == answer.hypotheses[0].token_ids.tolist()
    assert alone.score == pytest.approx(answer.score, abs=1e-5)


def test_pruning_always_leaves_the_best_document_and_may_leave_all(pair: Pair) -> None:
    (one, two) = pair.engine.generate([ASKED, "what?"], n_docs=5, doc_pruning=1, max_length=6)
    assert len(one.documents) == len(two.documents) == 1
    assert one.documents[0].prior == 1
    assert one.documents[0].id == pair.engine.retrieve(ASKED)[0].id
    everything = pair.engine.generate(ASKED, n_docs=5, doc_pruning=0, max_length=6)
    assert (len(everything.documents), everything.pruned) == (5, ())
    assert "documents_pruned" not in everything.flags
    for wrong in (-0.1, 1.5, float("nan"), "0.1", True):
        with pytest.raises(InputError, match=r"doc_pruning is .*from 0 to 1"):
            pair.engine.generate(ASKED, doc_pruning=wrong)


@pytest.mark.parametrize("seed", range(4))
def test_pruning_changes_no_probability_by_more_than_the_mass_left_out(pair: Pair, seed: int) -> None:
    """The bound of `RagEngine.generate`, for random documents, priors, prefixes and next tokens."""
    rng = np.random.default_rng(seed)
    generator, spec = pair.engine.generator, pair.engine.bundle.manifest.generator
    questions, documents, length = 6, 5, 4
    ids = rng.integers(5, spec.vocab_size, (questions, documents, 9))
    scores = rng.normal(0, 2, (questions, documents)).astype(np.float32)
    labels = rng.integers(5, spec.vocab_size, (questions, 1 + length))
    # tokens the model likes, where a difference is large: greedy ones in half of the rows
    greedy = generator.generate(
        ids,
        np.ones_like(ids),
        scores,
        pair.engine.default_options.replace(max_length=1 + length, num_beams=1),
    )
    for row in range(0, questions, 2):
        tokens = greedy[row][0].token_ids[:length]
        labels[row, 1 : 1 + len(tokens)] = tokens
    prior = np.exp(scores - scores.max(axis=1, keepdims=True))
    prior /= prior.sum(axis=1, keepdims=True)
    left_out = (prior < 0.15) & (prior < prior.max(axis=1, keepdims=True))
    mass = np.where(left_out, prior, 0).sum(axis=1)
    assert mass.max() > 0.05
    fewer = np.where(left_out, -np.inf, scores).astype(np.float32)  # as if they were not there
    largest = 0.0
    for marginalize in ("token", "sequence"):
        whole, pruned = (
            generator.forward(ids, np.ones_like(ids), s, labels, marginalize=marginalize).log_probs
            for s in (scores, fewer)
        )
        if marginalize == "sequence":  # the bound is on the prefix' probability
            whole, pruned = whole.cumsum(axis=1), pruned.cumsum(axis=1)
        difference = np.abs(np.exp(whole) - np.exp(pruned))
        assert (difference <= mass[:, None] + 1e-6).all()
        largest = max(largest, float((difference / np.maximum(mass[:, None], 1e-9)).max()))
    assert largest > 0.02  # the bound was put to the test
