"""Searching every kind of FAISS index: exact scores, settings of one call, laws that hold for any data."""

import gc
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragengine.errors import ClosedError, IndexFolderError, InputError
from ragengine.indexing.build import build_index
from ragengine.retrieval import vector_index as module
from ragengine.retrieval.candidates import SearchResult
from ragengine.retrieval.faiss_api import faiss_threads, search_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, E, brute_force, random_vectors
from tests.support.vector_indexes import (
    GRAPHS,
    LISTED,
    NLIST,
    OTHERS,
    UNTIED,
    WIDE,
    N,
    index,
    questions,
    vectors,
)


def same(found: SearchResult, expected: SearchResult, rows: Any = slice(None)) -> bool:
    return bool((found.rows == expected.rows[rows]).all() and (found.scores == expected.scores[rows]).all())


# --- what is found ----------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS])
def test_searching_and_reranking_everything_is_exact_search(factory: str) -> None:
    everything = {"nprobe": NLIST} if factory in LISTED else {}
    found = index(factory).search(questions(), 5, rerank_width=N, **everything)
    rows, scores = brute_force(vectors(), questions(), 5)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("factory", GRAPHS)
def test_reranking_a_graph_is_exact_search_among_its_candidates(factory: str) -> None:
    # Not among all passages: for inner products a graph may have no way to some of them.
    found = index(factory).search(questions(), 5, rerank_width=200)
    _, candidates = index(factory).faiss_index.search(questions(), 200)
    best, _ = brute_force(vectors(), questions(), 5)
    for q, proposed in enumerate(np.sort(candidates, axis=1)):
        proposed = proposed[proposed >= 0]
        rows, scores = brute_force(vectors()[proposed], questions()[q : q + 1], 5)
        np.testing.assert_array_equal(found.rows[q], proposed[rows[0]])
        np.testing.assert_array_equal(found.scores[q], scores[0])
    assert np.mean(found.rows == best) > 0.7


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS, *GRAPHS])
def test_scores_are_those_of_exact_search_whatever_is_found(factory: str) -> None:
    found = index(factory).search(questions(), 5, rerank_width=5)
    assert (found.rows >= 0).all()
    everything = (questions().astype(np.float64) @ vectors().astype(np.float64).T).astype(np.float32)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(everything, found.rows, axis=1))
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_reranking_finds_more_than_the_codes_alone() -> None:
    def recall(width: int) -> float:
        found = index("PQ8x4").search(questions(50), 5, rerank_width=width)
        rows, _ = brute_force(vectors(), questions(50), 5)
        return float(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.rows, rows, strict=True)]))

    assert recall(5) < 0.7 < 0.95 < recall(100)


@given(factory=st.sampled_from(UNTIED), nprobe=st.integers(1, NLIST), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_wider_rerank_never_finds_worse_documents(factory: str, nprobe: int, seed: int) -> None:
    asked = questions(4, seed)
    least = np.full((4, 5), -np.inf, np.float32)
    for width in (5, 8, 16, 40, 150, N):
        found = index(factory).search(asked, 5, nprobe=nprobe, rerank_width=width)
        assert (found.scores >= least).all()
        least = found.scores


@given(
    factory=st.sampled_from([*LISTED, *OTHERS, *GRAPHS]),
    order=st.permutations(range(24)),
    taken=st.integers(1, 24),
    n_docs=st.integers(1, 12),
)
@settings(max_examples=60)
def test_a_batch_is_its_questions_in_any_company(
    factory: str, order: list[int], taken: int, n_docs: int
) -> None:
    together = index(factory).search(questions(24), n_docs)
    some = order[:taken]
    assert same(index(factory).search(questions(24)[some], n_docs), together, some)


@given(seed=st.integers(0, 2**32), copies=st.integers(2, 40), factory=st.sampled_from(["Flat", "IVF4,Flat"]))
@settings(max_examples=40)
def test_ties_come_in_the_order_of_rows(seed: int, copies: int, factory: str) -> None:
    random = np.random.default_rng(seed)
    repeated = np.repeat(random.integers(-2, 3, (6, 4)), copies, axis=0).astype(np.float16)
    repeated = repeated[random.permutation(len(repeated))]
    faiss_index = faiss.index_factory(4, factory, faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(repeated.astype(np.float32))
    faiss_index.add(repeated.astype(np.float32))
    searcher = VectorIndex(faiss_index, repeated, 10.0, {})
    asked = random.integers(-2, 3, (3, 4)).astype(np.float32)
    listed = {} if factory == "Flat" else {"nprobe": 4}
    found = searcher.search(asked, copies + 3, rerank_width=len(repeated), **listed)
    rows, scores = brute_force(repeated, asked, copies + 3)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


def test_fewer_are_found_where_the_lists_that_are_searched_hold_fewer() -> None:
    listed = index(LISTED[0])
    sizes = [listed.faiss_index.invlists.list_size(number) for number in range(NLIST)]
    found = listed.search(questions(), N, nprobe=1)
    counts = (found.rows >= 0).sum(axis=1)
    assert set(counts.tolist()) <= set(sizes)
    for rows, scores, count in zip(found.rows, found.scores, counts, strict=True):
        assert (rows[count:] == -1).all()
        assert (scores[count:] == -np.inf).all()
        assert len(set(rows[:count].tolist())) == count


def test_an_empty_list_has_no_documents() -> None:
    near, far = np.zeros((40, WIDE), np.float32), np.zeros((40, WIDE), np.float32)
    near[:, 0], far[:, 1] = 1, 1
    faiss_index = faiss.index_factory(WIDE, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(np.vstack([near, far]))
    faiss_index.add(near)
    found = VectorIndex(faiss_index, near.astype(np.float16), 1.0, {}).search(far[:2], 3, nprobe=1)
    assert found.rows.tolist() == [[-1] * 3] * 2
    assert found.scores.tolist() == [[-np.inf] * 3] * 2


def test_duplicate_and_empty_passages_are_found_like_others(tmp_path: Path, bundle: Path) -> None:
    texts = ["same", "", "same", "other", ""]
    lines = [json.dumps({"id": f"id{row}", "title": "", "text": text}) for row, text in enumerate(texts)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    stored = random_vectors(5)
    stored[2], stored[4] = stored[0], stored[1]
    np.save(tmp_path / "v.npy", stored)
    build_index(tmp_path / "p.jsonl", tmp_path / "index", bundle=bundle, embeddings=tmp_path / "v.npy")
    with PassageIndex.open(tmp_path / "index") as opened:
        same_text, empty = opened.search_documents(10 * stored[:2], 9)
    assert [(d.id, d.text) for d in same_text[:2]] == [("id0", "same"), ("id2", "same")]
    assert [(d.id, d.text) for d in empty[:2]] == [("id1", ""), ("id4", "")]
    assert same_text[0].score == same_text[1].score
    assert len(same_text) == len(empty) == 5  # n_docs was 9: all there are


# --- settings of one call ----------------------------------------------------------------------------


@pytest.mark.parametrize("factory", LISTED)
def test_nprobe_of_a_call_is_what_the_setting_would_be(factory: str) -> None:
    for nprobe in (1, 3, NLIST):
        listed = index(factory)
        chosen = {"nprobe": nprobe, "rerank_width": 30}
        fixed = VectorIndex(faiss.clone_index(listed.faiss_index), vectors(), listed.max_norm, chosen)
        found = listed.search(questions(), 5, **chosen)
        gc.collect()
        assert same(found, fixed.search(questions(), 5))
    assert same(
        listed.search(questions(), 5, nprobe=NLIST), listed.search(questions(), 5, nprobe=10**6)
    )  # all lists
    assert faiss.try_extract_index_ivf(listed.faiss_index).nprobe == 1  # as it was


def test_threads_with_other_settings_do_not_disturb_each_other() -> None:
    listed = index(LISTED[2])
    chosen = [(nprobe, width) for nprobe in (1, 2, 5, NLIST) for width in (5, 60)]
    expected = [listed.search(questions(), 5, nprobe=p, rerank_width=w) for p, w in chosen]
    assert not same(expected[0], expected[-1])
    ready = threading.Barrier(len(chosen))

    def ask(number: int) -> int:
        nprobe, width = chosen[number]
        ready.wait()
        return sum(
            same(listed.search(questions(), 5, nprobe=nprobe, rerank_width=width), expected[number])
            for _ in range(100)
        )

    with ThreadPoolExecutor(len(chosen)) as pool:
        assert list(pool.map(ask, range(len(chosen)))) == [100] * len(chosen)


@pytest.mark.parametrize(
    ("factory", "chosen", "message"),
    [
        ("Flat", {"nprobe": 4}, "nprobe is 4, but IndexFlat.* has no inverted lists.*leave it out"),
        ("HNSW16", {"nprobe": 4}, "nprobe is 4, but IndexHNSWFlat has no inverted lists"),
        ("OPQ8_8,PQ8x4", {"nprobe": 4}, "nprobe is 4, but IndexPQ has no inverted lists"),
        (LISTED[0], {"nprobe": 0}, "nprobe is 0; it must be a whole number of at least 1"),
        (LISTED[2], {"nprobe": -1}, "nprobe is -1; it must be"),
        (LISTED[0], {"nprobe": 2.0}, "nprobe is 2.0; it must be"),
        (LISTED[0], {"nprobe": True}, "nprobe is True; it must be"),
        ("Flat", {"rerank_width": 0}, "rerank_width is 0; it must be"),
        (LISTED[0], {"rerank_width": "10"}, "rerank_width is '10'; it must be"),
    ],
)
def test_settings_that_an_index_does_not_take_are_refused(
    factory: str, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        index(factory).search(questions(1), 5, **chosen)


@pytest.mark.parametrize("name", ["rerank_width", "nprobe"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8", None])
def test_settings_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is .*; it must be a whole number of at least 1"):
        VectorIndex(index(LISTED[0]).faiss_index, vectors(), 10.0, {name: value})


def test_without_a_setting_as_many_candidates_are_proposed_as_documents_are_wanted() -> None:
    given = index("PQ8x4")
    proposed = given.faiss_index.search(questions(), 1)[1]
    np.testing.assert_array_equal(given.search(questions(), 1).rows, proposed)
    assert (proposed != brute_force(vectors(), questions(), 1)[0]).any()  # a second candidate would show


def test_settings_reach_the_index_of_a_folder(build: Callable[..., Path]) -> None:
    stored, asked = random_vectors(600), random_vectors(8, seed=1)
    with PassageIndex.open(build(stored, factory="IVF16,PQ4x4", recall=0.5)) as opened:
        rows, _ = brute_force(stored.astype(np.float16), asked, 5)
        everything = {"nprobe": 16, "rerank_width": 600}
        np.testing.assert_array_equal(opened.search(asked, 5, **everything).rows, rows)
        documents = opened.search_documents(asked, 5, **everything)
        assert [[d.id for d in found] for found in documents] == [[f"id{r}" for r in row] for row in rows]
        narrow = opened.search(asked, 5, nprobe=1, rerank_width=5)
        assert not np.array_equal(narrow.rows, rows)


def test_an_exact_search_asks_once_where_no_score_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []

    def recorded(faiss_index: Any, asked: Array, width: int, nprobe: int | None) -> Any:
        widths.append(width)
        return search_faiss(faiss_index, asked, width, nprobe)

    monkeypatch.setattr(module, "search_faiss", recorded)
    index("Flat").search(questions(), 5)
    assert widths == [5 + 16]


def test_an_exact_search_asks_once_where_the_last_candidate_alone_is_no_tie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = np.ones((400, WIDE), np.float16)
    stored[20:] = 0.5
    flat = faiss.IndexFlatIP(WIDE)
    flat.add(stored.astype(np.float32))
    widths: list[int] = []

    def recorded(faiss_index: Any, asked: Array, width: int, params: Any) -> Any:
        widths.append(width)
        return search_faiss(faiss_index, asked, width, params)

    monkeypatch.setattr(module, "search_faiss", recorded)
    searcher = VectorIndex(flat, stored, 4.0, {})
    for n_docs, asked in ((5, [21]), (6, [22]), (4, [20, 80])):  # the first 20 are tied
        widths.clear()
        found = searcher.search(np.ones((1, WIDE), np.float32), n_docs)
        assert found.rows.tolist() == [list(range(n_docs))]
        assert widths == asked


@pytest.mark.parametrize(("exact", "small"), [(True, 9), (False, 7)])
def test_what_is_a_small_search(exact: bool, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As below, where nothing is searched with several threads."""
    searcher = index("Flat" if exact else "SQ8")
    monkeypatch.setattr(module, "_SMALL_SCAN", 10 * vectors().size)
    asked: list[int | None] = []

    def recorded(threads: int | None) -> Any:
        asked.append(threads)
        return faiss_threads(1)

    monkeypatch.setattr(module, "faiss_threads", recorded)
    for count in (1, small, small + 1):
        searcher.search(questions(count), 5)
    assert asked == [1, 1, None]


@pytest.mark.parametrize(("exact", "small"), [(True, 9), (False, 7)])
def test_a_small_search_takes_one_thread(exact: bool, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an exact index by what it compares, here less than ten times all vectors; else by the questions."""
    monkeypatch.setattr(module, "_SMALL_SCAN", 10 * vectors().size)
    threads: list[int] = []

    def recorded(*arguments: Any) -> Any:
        threads.append(faiss.omp_get_max_threads())
        return search_faiss(*arguments)

    monkeypatch.setattr(module, "search_faiss", recorded)
    searcher, before = index("Flat" if exact else "SQ8"), faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        for count in (small, small + 1):
            searcher.search(questions(count), 5)
            assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
    assert threads == [1, 3]


def test_rows_that_are_not_there_are_damage() -> None:
    flat = index("Flat")
    short = VectorIndex(flat.faiss_index, vectors()[:10], flat.max_norm, {})
    with pytest.raises(IndexFolderError, match="the stored vectors are 10; build the index again"):
        short.search(questions(1), 5)
    one_short = faiss.IndexFlatIP(WIDE)
    one_short.add(vectors()[:11].astype(np.float32))
    with pytest.raises(IndexFolderError, match="found row 10, the stored vectors are 10"):
        VectorIndex(one_short, vectors()[:10], flat.max_norm, {}).search(
            vectors()[10:11].astype(np.float32), 5
        )


def test_a_closed_index_says_so(build: Callable[..., Path]) -> None:
    opened = PassageIndex.open(build(random_vectors(20)))
    opened.close()
    opened.close()
    with pytest.raises(ClosedError, match="is closed; open it again"):
        opened.search(np.zeros((1, E), np.float32), 1)
    with pytest.raises(ClosedError, match="is closed; open the index again"):
        opened.passages([0])
