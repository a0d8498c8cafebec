"""Recall beside exact search: of stored passages and of questions, at every re-rank width."""

from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import InputError
from ragengine.retrieval import recall
from ragengine.retrieval.recall import RecallTest, sample_rows
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, brute_force, random_vectors

N, WIDE, QUERIES, N_DOCS = 240, 8, 40, 5
STORED = random_vectors(N, WIDE).astype(np.float16)


@pytest.fixture(autouse=True)
def _in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large corpus: some passages are questions, and exact search reads block by block."""
    monkeypatch.setattr(recall, "QUERIES", QUERIES)
    monkeypatch.setattr(recall, "_ROWS_AT_ONCE", 50)


def index(stored: Array = STORED, factory: str = "IVF12,SQ4", **settings: int) -> VectorIndex:
    wide = stored.astype(np.float32)
    faiss_index = faiss.index_factory(stored.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(wide)
    faiss_index.add(wide)
    return VectorIndex(faiss_index, stored, float(np.linalg.norm(wide, axis=1).max()), settings)


def nearest_others(test: RecallTest, stored: Array = STORED) -> Array:
    """What exact search finds beside a question's own row, [Q, N - 1 or N]."""
    everything, _ = brute_force(stored, test.questions, len(stored))
    return np.array([row[row != own] for row, own in zip(everything, test.rows, strict=True)])


def expected_recall(test: RecallTest, found: Array) -> float:
    """The share of the nearest among the first ``n_docs`` of ``found`` [Q, K] that are no question's own."""
    total = 0
    for own, nearest, rows in zip(test.rows, nearest_others(test), found, strict=True):
        others = [row for row in rows.tolist() if row not in (own, -1)][: test.n_docs]
        total += len({*others} & {*nearest[: test.n_docs].tolist()})
    return total / (len(found) * test.n_docs)


# --- what exact search finds --------------------------------------------------------------------------


def test_questions_are_passages_and_their_own_is_left_out() -> None:
    told: list[tuple[int, int]] = []
    test = RecallTest.sample(STORED, N_DOCS, seed=3, report=lambda done, count: told.append((done, count)))
    assert told == [(50, N), (100, N), (150, N), (200, N), (N, N)]
    np.testing.assert_array_equal(test.rows, sample_rows(N, 3))
    np.testing.assert_array_equal(test.questions, STORED[test.rows].astype(np.float32))
    np.testing.assert_array_equal(test.nearest, nearest_others(test)[:, : N_DOCS + 16])
    products = test.questions.astype(np.float64) @ STORED.astype(np.float64).T
    np.testing.assert_allclose(test.scores, np.take_along_axis(products, test.nearest, 1), rtol=1e-5)
    assert (test.nearest.dtype, test.scores.dtype, test.n_docs) == (np.int64, np.float32, N_DOCS)


def test_one_block_has_as_many_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    several = RecallTest.sample(STORED, N_DOCS)
    monkeypatch.setattr(recall, "_ROWS_AT_ONCE", N)
    np.testing.assert_array_equal(RecallTest.sample(STORED, N_DOCS).nearest, several.nearest)


def test_given_questions_search_for_every_passage() -> None:
    asked = random_vectors(7, WIDE, seed=1)
    test = RecallTest.of_questions(STORED, asked)
    assert test.rows.tolist() == [-1] * 7
    assert test.n_docs == 5
    np.testing.assert_array_equal(test.nearest, brute_force(STORED, asked, 5 + 16)[0])
    noncontiguous = np.asfortranarray(asked)
    np.testing.assert_array_equal(RecallTest.of_questions(STORED, noncontiguous).nearest, test.nearest)


def test_where_there_are_few_passages_the_rest_is_empty() -> None:
    test = RecallTest.sample(STORED[:6], N_DOCS)
    assert test.nearest.shape == (6, N_DOCS + 16)
    assert (test.nearest[:, :5] >= 0).all()
    assert (test.nearest[:, 5:] == -1).all()
    assert (test.scores[:, 5:] == -np.inf).all()
    with pytest.raises(
        InputError, match=r"recall@5 of an approximate index cannot be measured on 5 passages"
    ):
        RecallTest.sample(STORED[:5], N_DOCS)


def test_the_sample_is_drawn_with_the_seed_and_ascends() -> None:
    assert sample_rows(9, 1).tolist() == list(range(9))
    drawn = sample_rows(N, 0)
    assert drawn.dtype == np.int64
    assert len(drawn) == QUERIES
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() == sample_rows(N, 0).tolist() != sample_rows(N, 1).tolist()


# --- what an index finds of it ------------------------------------------------------------------------


@pytest.mark.parametrize("questions", ["passages", "given"])
def test_recall_is_the_share_of_the_nearest_that_is_found(questions: str) -> None:
    test = RecallTest.sample(STORED, N_DOCS)
    if questions == "given":
        test = RecallTest.of_questions(STORED, random_vectors(QUERIES, WIDE, seed=2), N_DOCS)
    measured = []
    for nprobe in (1, 3, 12):
        for width in (6, 9, 60):
            searched = index(nprobe=nprobe, rerank_width=width)
            found = searched.search(test.questions, N_DOCS + 1).rows
            measured.append(test.measure(searched))
            assert measured[-1] == pytest.approx(expected_recall(test, found))
    assert measured[0] < 0.6 < 0.95 < measured[-1]


def test_every_width_is_measured_from_one_search() -> None:
    test, widths = RecallTest.sample(STORED, N_DOCS), [5, 6, 8, 20, 80]
    searched = index(nprobe=6)
    _, candidates = searched.faiss_index.search(test.questions, widths[-1])
    measured = test.measure_widths(searched, candidates, widths)
    for width, found in zip(widths, measured, strict=True):
        products = test.questions.astype(np.float64) @ STORED.astype(np.float64).T
        among = np.where(
            candidates[:, :width] < 0, -np.inf, np.take_along_axis(products, candidates[:, :width], 1)
        )
        ranked = np.take_along_axis(candidates, np.argsort(-among, axis=1), 1)
        assert found == pytest.approx(expected_recall(test, ranked))
    assert measured == sorted(measured)
    assert measured[0] < measured[-1] < 1


@pytest.mark.parametrize(("lower", "found"), [(0.8, 1.0), (1.2, 0.0)])
def test_a_hit_may_be_lower_by_the_rounding_of_float32(lower: float, found: float) -> None:
    """Of its own question, whose length decides how much that is."""
    stored = np.eye(WIDE, dtype=np.float16) * 4
    lengths = np.array([1, 1000, 30], np.float32)
    asked = lengths[:, None] * np.eye(WIDE, dtype=np.float32)[:3]
    doubt = WIDE * np.finfo(np.float32).eps * lengths * 4
    scores = (4 * lengths + lower * doubt)[:, None]
    test = RecallTest(np.full(3, -1), asked, np.full((3, 1), WIDE - 1), scores.astype(np.float32), 1)
    assert test.measure(index(stored, factory="Flat")) == found


@pytest.mark.parametrize("copies", [3, 8, 40])
def test_equally_good_passages_count_as_each_other(copies: int) -> None:
    """Also where exact search has not kept all of them."""
    stored = np.repeat(random_vectors(N // copies, WIDE), copies, axis=0).astype(np.float16)
    test = RecallTest.sample(stored, N_DOCS)
    searched = index(stored, factory="Flat")
    assert test.measure(searched) == 1
    backwards = np.argsort(-(test.questions @ stored.astype(np.float32).T), axis=1)[:, : 3 * copies]
    # a question's own row is no hit, and its copies are found first in any order
    shuffled = np.array([np.random.default_rng(q).permutation(row) for q, row in enumerate(backwards)])
    whole, half = test.measure_widths(searched, shuffled, [3 * copies, 2])
    assert whole == 1
    assert half <= 2 / 5


def test_what_is_no_candidate_is_no_hit() -> None:
    stored = np.ones((N, WIDE), np.float16)  # all equally good: more of them than exact search kept
    test = RecallTest.sample(stored, N_DOCS)
    searched = index(stored, factory="Flat")
    own = test.rows[:, None]
    other = np.where(own == 0, 1, 0)
    none = np.full_like(own, -1)
    candidates: Any = np.hstack([own, none, other, other])
    assert test.measure_widths(searched, candidates, [1, 2, 3, 4]) == pytest.approx([0, 0, 0.2, 0.4])
