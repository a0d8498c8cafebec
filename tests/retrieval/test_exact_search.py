"""Searching vectors: what is found, and its scores, are those of exact search."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.errors import InputError
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import E, brute_force, random_vectors
from tests.support.vector_indexes import flat


@given(
    count=st.integers(1, 120),
    distinct=st.integers(1, 8),
    n_docs=st.integers(1, 130),
    seed=st.integers(0, 2**32),
    whole=st.booleans(),
)
def test_search_is_exact_search_with_ties_by_row(
    count: int, distinct: int, n_docs: int, seed: int, whole: bool
) -> None:
    # Few distinct passages: nearly every score is tied, by more of them than the search fetches at first.
    random = np.random.default_rng(seed)
    draw = (lambda n: random.integers(-2, 3, (n, 3))) if whole else (lambda n: random.standard_normal((n, 3)))
    vectors = draw(distinct).astype(np.float16)[random.integers(0, distinct, count)]
    questions = draw(4).astype(np.float32)
    rows, scores = brute_force(vectors, questions, n_docs)
    found = flat(vectors).search(questions, n_docs)
    assert found.rows.shape == found.scores.shape == (4, n_docs)
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found.rows[:, :count], rows)
    np.testing.assert_array_equal(found.scores[:, :count], scores)
    assert (found.rows[:, count:] == -1).all()
    assert (found.scores[:, count:] == -np.inf).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_search_of_large_and_small_numbers_is_exact(scale: float) -> None:
    vectors = (random_vectors(3000, 64) * scale).astype(np.float16)
    questions = random_vectors(32, 64, seed=1)
    rows, scores = brute_force(vectors, questions, 10)
    found = flat(vectors).search(questions, 10)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-7)


def test_search_is_exact_where_float32_sums_are_not() -> None:
    # A large product at either end that cancel: FAISS's float32 sums lose all that lies between.
    vectors = (random_vectors(400, 16) * 0.01).astype(np.float16)
    vectors[:, [0, -1]] = 1000
    questions = random_vectors(8, 16, seed=1)
    questions[:, 0] = 1e4
    questions[:, -1] = -1e4
    rows, scores = brute_force(vectors, questions, 5)
    found = flat(vectors).search(questions, 5)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)  # numpy cancels in another order


def test_batch_is_one_at_a_time() -> None:
    index, questions = flat(random_vectors(500)), random_vectors(9, seed=1)
    batch = index.search(questions, 5)
    for q in range(9):
        one = index.search(questions[q : q + 1], 5)
        np.testing.assert_array_equal(one.rows[0], batch.rows[q])
        np.testing.assert_array_equal(one.scores[0], batch.scores[q])


def test_no_questions_and_unusual_memory_layouts() -> None:
    index, questions = flat(random_vectors(50)), random_vectors(6, seed=1)
    assert index.search(questions[:0], 3).rows.shape == (0, 3)
    for same in (np.asfortranarray(questions), np.repeat(questions, 2, axis=0)[::2]):
        np.testing.assert_array_equal(index.search(same, 3).rows, index.search(questions, 3).rows)


@pytest.mark.parametrize(
    ("questions", "n_docs", "message"),
    [
        (np.zeros((1, E)), 5, "must be float32, found float64"),
        ([[0.0] * E], 5, "must be float32, found list"),
        (np.zeros(E, np.float32), 5, r"the shape \[8\]; this index needs \[Q, 8\]"),
        (np.zeros((1, E + 1), np.float32), 5, r"the shape \[1, 9\]; this index needs \[Q, 8\]"),
        (np.array([[0] * E, [np.nan] * E], np.float32), 5, "Question vector 1 has NaN or infinite"),
        (np.array([[-np.inf] * E], np.float32), 5, "Question vector 0 has NaN or infinite"),
        (np.full((1, E), 3e38, np.float32), 5, "Question vector 0 has the norm 8.49e.38.*scale it down"),
        (np.zeros((1, E), np.float32), 0, "n_docs is 0; it must be a whole number of at least 1"),
        (np.zeros((1, E), np.float32), 2.0, "n_docs is 2.0"),
        (np.zeros((1, E), np.float32), True, "n_docs is True"),
    ],
)
def test_wrong_questions_are_refused(questions: Any, n_docs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flat(random_vectors(20)).search(questions, n_docs)


def test_scores_behind_a_lossy_index_are_exact(build: Callable[..., Path]) -> None:
    vectors, questions = random_vectors(400), random_vectors(5, seed=1)
    with PassageIndex.open(build(vectors, factory="PQ2x4")) as index:
        found = index.search(questions, 5)
    all_scores = questions.astype(np.float64) @ vectors.astype(np.float16).astype(np.float64).T
    expected = np.take_along_axis(all_scores, found.rows, axis=1)
    np.testing.assert_array_equal(found.scores, expected.astype(np.float32))
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_many_threads_search_as_one(build: Callable[..., Path]) -> None:
    index = PassageIndex.open(build(random_vectors(500), factory="IVF8,Flat"))
    questions = random_vectors(40, seed=1)
    expected = index.search(questions, 5)
    wrong: list[object] = []

    def search() -> None:
        try:
            for q in range(40):
                found = index.search(questions[q : q + 1], 5)
                same = (found.rows[0] == expected.rows[q]).all() and (
                    found.scores[0] == expected.scores[q]
                ).all()
                if not same or index.passages(found.rows[0])[0].id != f"id{expected.rows[q, 0]}":
                    wrong.append(q)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
