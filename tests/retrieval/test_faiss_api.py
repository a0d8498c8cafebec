"""How FAISS is called: what an index is inside its wrappings, parameters of one search, threads, errors."""

import builtins
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import DependencyError, IndexFolderError, InputError
from ragengine.retrieval import faiss_api
from ragengine.retrieval.faiss_api import (
    check_whole,
    extract_ivf,
    faiss_reason,
    faiss_threads,
    import_faiss,
    is_graph,
    search_faiss,
    search_parameters,
    takes_selector,
)
from ragengine.retrieval.structure import Structure
from tests.support.bundles import random_vectors

N, WIDE = 300, 8


def made(factory: str, *, filled: bool = False) -> Any:
    index = faiss.index_factory(WIDE, factory, faiss.METRIC_INNER_PRODUCT)
    if filled:
        index.train(random_vectors(N, WIDE))
        index.add(random_vectors(N, WIDE))
    return index


# --- kinds of indexes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "lists", "graph", "selects"),
    [
        ("Flat", None, False, True),
        ("SQ8", None, False, True),
        ("PQ4x4", None, False, False),
        ("PCA4,PQ4x4", None, False, False),
        ("PCA4,SQ8", None, False, True),
        ("PQ4x4,RFlat", None, False, False),
        ("IVF4,Flat", 4, False, True),
        ("PCA4,IVF5,PQ4x4", 5, False, True),
        ("IVF6,PQ4x4,RFlat", 6, False, True),
        ("PCA4,IVF7,PQ4x4,RFlat", 7, False, True),
        ("IVF4,RQ2x4", 4, False, False),
        ("HNSW8", None, True, True),
        ("PCA4,HNSW8", None, True, True),
        ("NSG8", None, True, False),
    ],
)
def test_what_an_index_is_inside_its_wrappings(
    factory: str, lists: int | None, graph: bool, selects: bool
) -> None:
    index = made(factory)
    assert (extract_ivf(index).nlist if lists else extract_ivf(index)) == lists
    assert is_graph(index) is graph
    assert takes_selector(index) is selects
    if lists:
        assert [Structure.of(index).checked_nprobe(n) for n in (1, lists, lists + 1)] == [1, lists, lists]
        assert type(Structure.of(index).checked_nprobe(np.int64(2))) is int
    else:
        with pytest.raises(InputError, match=r"nprobe is 2, but Index.* has no inverted lists to"):
            Structure.of(index).checked_nprobe(2)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None])
def test_whole_numbers_begin_with_one(value: Any) -> None:
    check_whole("x", 1)
    check_whole("x", np.int32(7))
    with pytest.raises(InputError, match=r"x is .*; it must be a whole number of at least 1"):
        check_whole("x", value)


# --- parameters of one search -------------------------------------------------------------------------


def selector(share: float) -> Any:
    mask = np.random.default_rng(0).random(N) < share
    return faiss.IDSelectorBatch(np.flatnonzero(mask))


def test_without_a_choice_the_index_decides() -> None:
    for factory in ("Flat", "IVF4,Flat", "PCA4,IVF4,Flat", "HNSW8", "IVF4,PQ4x4,RFlat"):
        assert search_parameters(made(factory), None) is None


def test_lists_are_those_that_were_asked_for_or_as_many_more_as_fewer_rows_match() -> None:
    index = made("IVF12,Flat")
    index.nprobe, index.max_codes = 3, 77
    given = search_parameters(index, 5)
    assert (given.nprobe, given.max_codes, given.sel) == (5, 77, None)
    chosen = selector(0.5)
    for nprobe, share, lists in [
        (None, 1.0, 3),
        (None, 0.5, 6),
        (None, 0.4, 8),
        (None, 0.01, 12),
        (2, 0.1, 2),
    ]:
        given = search_parameters(index, nprobe, chosen, share)
        assert (given.nprobe, given.max_codes) == (lists, 77)
        assert given.sel is not None


def test_a_graph_visits_more_nodes_where_fewer_rows_match() -> None:
    index = made("HNSW8", filled=True)
    index.hnsw.efSearch = 16
    chosen = selector(0.5)
    for share, nodes in [(1.0, 16), (0.5, 32), (0.3, 54), (0.01, N)]:
        given = search_parameters(index, None, chosen, share)
        assert given.efSearch == nodes
        assert given.sel is not None
    index.hnsw.efSearch = 2 * N
    assert search_parameters(index, None, chosen, 0.5).efSearch == 2 * N


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,Flat", "PCA8,IVF4,Flat", "IVF4,SQ8,RFlat", "HNSW8"])
def test_a_selector_reaches_the_index_inside(factory: str) -> None:
    index, chosen = made(factory, filled=True), selector(0.2)
    allowed = {row for row in range(N) if chosen.is_member(row)}
    _, rows = search_faiss(
        index, random_vectors(9, WIDE, seed=1), 12, search_parameters(index, None, chosen, 0.2)
    )
    assert {*rows.ravel().tolist()} - {-1} <= allowed
    assert len({*rows.ravel().tolist()}) > 20


def test_nprobe_reaches_the_index_inside() -> None:
    asked = random_vectors(30, WIDE, seed=1)
    for factory in ("IVF12,Flat", "PCA8,IVF12,Flat", "IVF12,Flat,RFlat", "PCA8,IVF12,SQ8,RFlat"):
        index = made(factory, filled=True)
        found = [search_faiss(index, asked, 3, search_parameters(index, n))[1] for n in (1, 12)]
        _, narrow = search_faiss(index, asked, 3)
        extract_ivf(index).nprobe = 12
        _, wide = search_faiss(index, asked, 3)
        np.testing.assert_array_equal(found[0], narrow)
        np.testing.assert_array_equal(found[1], wide)
        assert (narrow != wide).any()


def test_refining_looks_at_as_many_candidates_as_the_index_says() -> None:
    index = made("SQ4,RFlat", filled=True)
    index.k_factor = 7
    given = search_parameters(index, None, selector(0.5), 0.5)
    assert given.k_factor == 7


# --- threads and errors -------------------------------------------------------------------------------


def test_threads_are_those_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed: the numbers are OpenMP's."""
    monkeypatch.setattr(faiss_api, "lost_openmp_threads", lambda: False)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        for threads, inside in ((1, 1), (2, 2), (None, 3)):
            with faiss_threads(threads):
                assert faiss.omp_get_max_threads() == inside
            assert faiss.omp_get_max_threads() == 3
        with pytest.raises(ZeroDivisionError), faiss_threads(2):
            raise ZeroDivisionError
        assert faiss.omp_get_max_threads() == 3
        monkeypatch.setattr(faiss_api, "lost_openmp_threads", lambda: True)
        for threads in (None, 2):
            with faiss_threads(threads):
                assert faiss.omp_get_max_threads() == 1
            assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Error in void f(int) at /x/Index.cpp:35: Error: 'a > b' failed: too few",
            "'a > b' failed: too few",
        ),
        ("Error in void f(int) at /x/Index.cpp:35: short\nof memory", "short of memory"),
        ("no place: at all", "no place: at all"),
    ],
)
def test_the_reason_is_what_faiss_says_without_where(said: str, reason: str) -> None:
    assert faiss_reason(RuntimeError(said)) == reason


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_what_faiss_notices_when_it_searches_is_damage(error: type[Exception]) -> None:
    class Damaged:
        def search(self, questions: Any, width: int, params: Any) -> Any:
            raise error("Error in f at /x/Index.cpp:3: Error: out of bounds")

    with pytest.raises(IndexFolderError, match=r"cannot be searched: out of bounds; ask less at once"):
        search_faiss(Damaged(), random_vectors(1), 3)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ImportError("no module"),
            r"not installed; run pip install .*cpu.*pip install .*gpu.* \(no module\)",
        ),
        (OSError("libcublas.so.12"), r"faiss cannot be loaded: libcublas\.so\.12; ragengine doctor"),
        (RuntimeError("no driver"), "faiss cannot be loaded: no driver"),
    ],
)
def test_faiss_that_is_not_there_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    load: Callable[..., Any] = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "faiss":
            raise error
        return load(name, *arguments, **options)

    assert import_faiss() is faiss
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(DependencyError, match=message):
        import_faiss()
