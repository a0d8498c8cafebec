"""Filtered searches: the best of the passages that match, whatever kind of index proposes them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval import vector_index
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.passage_filter import MatchingRows, PassageFilter
from ragengine.retrieval.passage_store import PassageStore, write_passages
from tests.retrieval.test_index import flat
from tests.retrieval.test_vector_index import GRAPHS, LISTED, N, OTHERS, index, questions, vectors
from tests.support.bundles import E, brute_force, random_vectors, write_bundle

# --- among the vectors ------------------------------------------------------------------------------


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
    monkeypatch.setattr(vector_index, "FEW_MATCHING", 0)  # as if there were millions
    searched, rows = index(factory), matching(share)
    for n_docs, chosen in ((1, {}), (7, {}), (40, {"rerank_width": 60}), (N, {})):
        found = searched.search(questions(), n_docs, matching=rows, **chosen)
        count = min(n_docs, rows.count)
        assert (found.rows[:, :count] >= 0).all() and (found.rows[:, count:] == -1).all()
        for question, row, scores in zip(questions(), found.rows[:, :count], found.scores, strict=True):
            assert len(set(row)) == count and set(row) <= set(rows.rows)
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
        patch.setattr(vector_index, "FEW_MATCHING", 4096 if few else 0)
        found = flat(stored).search(asked, n_docs, matching=rows)
    expected, scores = brute_force(stored[mask], asked, n_docs)
    there = min(n_docs, rows.count)
    np.testing.assert_array_equal(found.rows[:, :there], rows.rows[expected])
    np.testing.assert_array_equal(found.scores[:, :there], scores)
    assert (found.rows[:, there:] == -1).all()


def test_a_listed_index_compares_about_as_many_rows_with_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passage in twenty matches, so twenty times the lists are searched."""
    monkeypatch.setattr(vector_index, "FEW_MATCHING", 0)
    rows = matching(0.05)
    searched = index("IVF12,Flat")
    exact, _ = brute_force(vectors()[rows.rows], questions(), 5)
    found = searched.search(questions(), 5, matching=rows).rows
    np.testing.assert_array_equal(found, rows.rows[exact])  # one list of twelve would hold about 6 of 75
    one = searched.search(questions(), 5, nprobe=1, matching=rows).rows
    assert (one != found).any()
