"""Opening and searching an index: what is found is what exact search finds; what is damaged is refused."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.bundle.bundle import Bundle
from ragengine.errors import IndexFolderError, InputError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FORMAT
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, E, brute_force, random_vectors, rewrite_manifest, write_bundle

# --- searching -------------------------------------------------------------------------------------


def flat(vectors: Array) -> VectorIndex:
    half = vectors.astype(np.float16)
    index = faiss.IndexFlatIP(half.shape[1])
    index.add(half.astype(np.float32))
    max_norm = float(np.linalg.norm(half.astype(np.float64), axis=1).max())
    return VectorIndex(index, half, max_norm, {})


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


# --- opening what is damaged, forged or another's ---------------------------------------------------


def write_faiss(path: Path, vectors: Array, metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
    index = faiss.IndexFlat(vectors.shape[1], metric)
    index.add(vectors)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_cut_file_is_refused(build: Callable[..., Path], verify: Any) -> None:
    path = build(random_vectors(20))
    content = (path / "vectors.npy").read_bytes()
    (path / "vectors.npy").write_bytes(content[:-1])
    with pytest.raises(IndexFolderError, match=r"vectors\.npy has 447 bytes instead of 448"):
        PassageIndex.open(path, verify=verify)


def test_flipped_bit_is_refused(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    content = bytearray((path / "index.faiss").read_bytes())
    content[-1] ^= 1
    (path / "index.faiss").write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"index\.faiss has another sha256"):
        PassageIndex.open(path)


FORGERIES: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "fewer vectors": (
        lambda path: np.save(path / "vectors.npy", random_vectors(19).astype(np.float16)),
        {},
        "vectors.npy has 19 vectors of 8, its manifest says 20 of 8",
    ),
    "fp32 vectors": (
        lambda path: np.save(path / "vectors.npy", random_vectors(20)),
        {},
        "vectors.npy holds float32",
    ),
    "pickled vectors": (
        lambda path: np.save(path / "vectors.npy", np.array([{}], object)),
        {},
        "vectors.npy cannot be read as a .npy file",
    ),
    "no vectors": (lambda path: (path / "vectors.npy").write_bytes(b""), {}, "cannot be read as a .npy file"),
    "faiss of another size": (
        lambda path: write_faiss(path / "index.faiss", random_vectors(21)),
        {},
        "index.faiss has 21 vectors of 8",
    ),
    "faiss of another metric": (
        lambda path: write_faiss(path / "index.faiss", random_vectors(20), faiss.METRIC_L2),
        {},
        "index.faiss has the metric number 1",
    ),
    "no faiss": (
        lambda path: (path / "index.faiss").write_bytes(b"no"),
        {},
        "index.faiss cannot be read by faiss",
    ),
    "no passages": (lambda path: (path / "passages.sqlite").write_bytes(b"no"), {}, "passages.sqlite"),
    "another dimension": (
        lambda path: None,
        {"dimension": 9},
        "has 20 vectors of 8, its manifest says 20 of 9",
    ),
    "another setting": (lambda path: None, {"search": {"nprobe": 4}}, "nprobe=4 does not fit"),
    "a negative setting": (
        lambda path: None,
        {"search": {"nprobe": -4}},
        "search.nprobe: -4 is not from 1 to 2147483647",
    ),
    "unlisted file": (lambda path: (path / "index.faiss").unlink(), {}, "does not list index.faiss"),
    "wrong types": (lambda path: None, {"count": "20"}, "count: expected int, found str"),
    "newer version": (
        lambda path: None,
        {"format_version": 3},
        "format version 3, this ragengine reads up to 2",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_folder_is_refused(build: Callable[..., Path], forgery: str) -> None:
    change, fields, message = FORGERIES[forgery]
    path = build(random_vectors(20))
    change(path)
    rewrite_manifest(path, **fields)
    with pytest.raises(IndexFolderError, match=message):
        PassageIndex.open(path)


def forge_passages(path: Path) -> None:
    with sqlite3.connect(path / "passages.sqlite") as connection:
        connection.execute("DELETE FROM passages WHERE row = 3")
    connection.close()


def forge_vectors(path: Path) -> None:
    vectors = np.load(path / "vectors.npy")
    vectors[17] = np.nan
    np.save(path / "vectors.npy", vectors)


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (forge_passages, "passages.sqlite has 19 passages, its manifest says 20"),
        (forge_vectors, "the stored vector of row 17 has the norm nan"),
        (
            lambda path: write_faiss(path / "index.faiss", random_vectors(20)),
            "row 0 of index.faiss is not the vector",
        ),
    ],
)
def test_verify_finds_what_hashes_cannot_show(
    build: Callable[..., Path], forge: Callable[[Path], None], message: str
) -> None:
    path = build(random_vectors(20))
    forge(path)
    rewrite_manifest(path)
    with PassageIndex.open(path) as index, pytest.raises(IndexFolderError, match=message):
        index.verify()


def test_opening_reads_no_passages_but_the_first_and_the_last(build: Callable[..., Path]) -> None:
    path = build(random_vectors(4000))
    content = (path / "passages.sqlite").read_bytes()
    third = len(content) // 3
    (path / "passages.sqlite").write_bytes(content[:third] + b"\xff" * third + content[2 * third :])
    with PassageIndex.open(path, verify="size") as index:
        assert [passage.id for passage in index.passages([0, 3999])] == ["id0", "id3999"]
        with pytest.raises(IndexFolderError, match=r"passages\.sqlite cannot be read"):
            index.passages([2000])


def test_verify_measures_recall_again(build: Callable[..., Path]) -> None:
    path = build(random_vectors(300), factory="IVF16,Flat", recall=1.0)
    rewrite_manifest(path, search={"nprobe": 1, "rerank_width": 100})
    with PassageIndex.open(path) as index, pytest.raises(IndexFolderError, match=r"the manifest says 1\.000"):
        index.verify()


def test_index_of_another_encoder_is_refused_with_both_names(
    tmp_path: Path, build: Callable[..., Path]
) -> None:
    index = PassageIndex.open(build(random_vectors(20)))
    other = Bundle.open(write_bundle(tmp_path / "other", E, fingerprint="a" * 64))
    with pytest.raises(
        IndexFolderError, match=r"passage_encoder \(ffffffffffff\).*passage_encoder \(aaaaaaaaaaaa\)"
    ):
        index.check_belongs_to(other)
    wider = Bundle.open(write_bundle(tmp_path / "wider", E + 1))
    with pytest.raises(IndexFolderError, match=r"vectors of 8 numbers, .* gives 9"):
        index.check_belongs_to(wider)


def test_bundle_is_not_an_index(bundle: Path) -> None:
    with pytest.raises(IndexFolderError, match=f"says format 'ragengine-bundle'; '{FORMAT}' was expected"):
        PassageIndex.open(bundle)
