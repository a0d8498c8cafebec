"""Whether a question is far from a corpus: against the passages' own neighbours."""

import math

import numpy as np

from ragengine.confidence.corpus import Corpus, fingerprint, median_nearness, spread_rows, standard_scores


def test_standard_scores_are_those_of_the_sample() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(50, 8)).astype(np.float32)
    vectors = rng.normal(size=(3, 8)).astype(np.float32)
    best = np.array([5.0, 1.0, -2.0])
    scores = vectors.astype(np.float64) @ sample.T.astype(np.float64)
    expected = (best - scores.mean(axis=1)) / scores.std(axis=1)
    np.testing.assert_allclose(standard_scores(sample, vectors, best), expected, rtol=1e-5)


def test_a_question_without_a_near_passage_is_far() -> None:
    """Passages lie in loose pairs; a question close to a passage is not far, one between all of them is."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(200, 16))
    passages = np.repeat(centres, 2, axis=0) + 0.2 * rng.normal(size=(400, 16))
    passages = (passages / np.linalg.norm(passages, axis=1, keepdims=True)).astype(np.float32)
    sample = passages[spread_rows(len(passages), 256)]
    scores = sample[:64] @ passages.T
    nearest = np.sort(scores, axis=1)[:, -2]  # the best is the passage itself
    corpus = Corpus("x", sample, median_nearness(sample, sample[:64], nearest, len(passages)))
    near = passages[::40] + 0.02 * rng.normal(size=(10, 16)).astype(np.float32)
    far = rng.normal(size=(10, 16)).astype(np.float32)
    found = [[corpus.is_far(q, float((passages @ q).max())) for q in group] for group in (near, far)]
    assert sum(found[0]) <= 3
    assert sum(found[1]) >= 8


def test_few_passages_say_nothing() -> None:
    sample = np.eye(4, dtype=np.float32)
    assert median_nearness(sample, sample, np.zeros(4), 4) == -math.inf
    assert not Corpus("x", sample, -math.inf).is_far(sample[0], -1e9)


def test_rows_are_spread_over_all() -> None:
    assert spread_rows(3, 256) == [0, 1, 2]
    rows = spread_rows(10_000, 256)
    assert (rows[0], rows[-1], len(rows)) == (0, 9_999, 256)
    assert max(np.diff(rows)) <= 40


def test_a_fingerprint_is_of_the_content_alone() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 64
