"""Filtered searches of vectors: the best that match, whatever kind of index proposes them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.retrieval import candidates
from ragengine.retrieval.faiss_api import search_faiss
from ragengine.retrieval.gpu.search_worker import SearchWorker
from ragengine.retrieval.passage_filter import MatchingRows
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import brute_force
from tests.support.vector_indexes import GRAPHS, LISTED, OTHERS, N, flat, index, questions, vectors


def matching(share: float, seed: int = 0) -> MatchingRows:
    return MatchingRows.of_mask(np.random.default_rng(seed).random(N) < share)


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS, *GRAPHS])
@pytest.mark.parametrize("share", [0.004, 0.3, 1.0])
def test_a_filter_that_few_match_is_searched_exactly_by_every_kind_of_index(
    factory: str, share: float
) -> None:
    rows = matching(share)
    found = index(factory).search(questions(), 7, matching=rows)
    expected, scores = brute_force(vectors()[rows.rows], questions(), 7)
    count = min(7, rows.count)
    np.testing.assert_array_equal(found.rows[:, :count], rows.rows[expected])
    np.testing.assert_array_equal(found.scores[:, :count], scores)
    assert (found.rows[:, count:] == -1).all()


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS, *GRAPHS])
@pytest.mark.parametrize("share", [0.004, 0.1, 0.6, 1.0])
def test_every_kind_of_index_finds_as_many_as_match(
    factory: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)  # as if there were millions
    searched, rows = index(factory), matching(share)
    for n_docs, chosen in ((1, {}), (7, {}), (40, {"rerank_width": 60}), (N, {})):
        found = searched.search(questions(), n_docs, matching=rows, **chosen)
        count = min(n_docs, rows.count)
        assert (found.rows[:, count:] == -1).all()
        for question, row, scores in zip(questions(), found.rows[:, :count], found.scores, strict=True):
            assert len(set(row) & set(rows.rows)) == count
            np.testing.assert_array_equal(scores[:count], searched.exact_scores(question, row))
            assert (np.diff(scores[:count]) <= 0).all()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 90), n_docs=st.integers(1, 100), few=st.booleans())
def test_an_exact_index_finds_exactly_the_best_that_match(
    seed: int, count: int, n_docs: int, few: bool
) -> None:
    random = np.random.default_rng(seed)
    stored = random.integers(-2, 3, (count, 3)).astype(np.float16)  # nearly every score is tied
    mask = random.random(count) < random.random()
    mask[random.integers(count)] = True
    asked = random.integers(-2, 3, (3, 3)).astype(np.float32)
    rows = MatchingRows.of_mask(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "FEW_MATCHING", 4096 if few else 0)
        found = flat(stored).search(asked, n_docs, matching=rows)
    expected, scores = brute_force(stored[mask], asked, n_docs)
    there = min(n_docs, rows.count)
    np.testing.assert_array_equal(found.rows[:, :there], rows.rows[expected])
    np.testing.assert_array_equal(found.scores[:, :there], scores)
    assert (found.rows[:, there:] == -1).all()


def test_a_listed_index_compares_about_as_many_rows_with_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passage in twenty matches, so twenty times the lists are searched."""
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    rows = matching(0.05)
    searched = index("IVF12,Flat")
    exact, _ = brute_force(vectors()[rows.rows], questions(), 5)
    found = searched.search(questions(), 5, matching=rows).rows
    np.testing.assert_array_equal(found, rows.rows[exact])  # one list of twelve would hold about 6 of 75
    one = searched.search(questions(), 5, nprobe=1, matching=rows).rows
    assert (one != found).any()


def test_what_the_searched_lists_hold_enough_of_is_not_scored_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    searched, everything = index("IVF12,Flat"), matching(1.0)
    assert everything.count == N
    near_the_first = vectors()[:1] + 0.1 * questions()  # so that row 0 is among what is found
    asked = near_the_first.astype(np.float32)
    found = searched.search(asked, 9, nprobe=1, matching=everything)
    assert (found.rows[:, 0] == 0).any()
    assert (found.rows != brute_force(vectors(), asked, 9)[0]).any()
    np.testing.assert_array_equal(found.rows, searched.search(asked, 9, nprobe=1).rows)


def test_a_device_is_not_asked_for_the_candidates_of_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's GPU indexes select no rows: the index on the host proposes."""
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    shared, rows = index("IVF12,Flat"), matching(0.3)
    searched = VectorIndex(shared.faiss_index, vectors(), shared.max_norm, {})
    asked: list[int] = []

    def search(asking: Any, width: int, nprobe: int | None) -> Any:
        asked.append(width)
        return search_faiss(shared.faiss_index, asking, width)

    searched.search_with(SearchWorker(search, most_selected=2048))
    try:
        found = searched.search(questions(), 7, matching=rows)
        assert asked == []
        np.testing.assert_array_equal(found.rows, shared.search(questions(), 7, matching=rows).rows)
        searched.search(questions(), 7)
        assert asked == [7]
    finally:
        searched.close()
