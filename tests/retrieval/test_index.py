"""Opening and searching an index: what is found is what exact search finds; what is damaged is refused."""

import json
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import median_nearness, spread_rows
from ragengine.errors import ClosedError, IndexFolderError, InputError, ProcessError
from ragengine.indexing.build import build_index
from ragengine.retrieval import index as index_module
from ragengine.retrieval.gpu.searcher import faiss_build
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FORMAT, IndexManifest, manifest_fingerprint
from ragengine.retrieval.open_index import describe_placement
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


# --- what an index says of itself -----------------------------------------------------------------------


def test_rows_and_ids_of_passages(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    with PassageIndex.open(path) as opened:
        assert (opened.name, opened.path, opened.count, opened.dimension) == (f"index {path}", path, 20, E)
        assert opened.rows_of(["id3", "none", "id0"]) == {"id3": [3], "id0": [0]}
        assert opened.missing_ids(["none", "id3", "neither", "id0"]) == ["none", "neither"]
        assert opened.missing_ids([]) == []
        assert opened.matching_rows(None).tolist() == list(range(20))
        assert [one.id for one in opened.passages([4, 1, 4])] == ["id4", "id1", "id4"]
        assert str(opened.best_placement()).startswith(("CPU", "GPU"))
        assert str(opened.placement) == "CPU: device is cpu"
        opened.warm_up()


def test_documents_are_the_passages_with_their_scores(build: Callable[..., Path]) -> None:
    asked = random_vectors(3, seed=1)
    with PassageIndex.open(build(random_vectors(20))) as opened:
        for n_docs in (1, 4, 20, 21, np.int64(4)):
            found, documents = opened.search(asked, n_docs), opened.search_documents(asked, n_docs)
            for rows, scores, several in zip(found.rows, found.scores, documents, strict=True):
                kept = min(int(n_docs), 20)
                assert [one.id for one in several] == [f"id{row}" for row in rows[:kept]]
                assert [one.text for one in several] == [f"text {row}" for row in rows[:kept]]
                assert [one.title for one in several] == [f"title {row}" for row in rows[:kept]]
                assert [one.score for one in several] == scores[:kept].tolist()
        with pytest.raises(InputError, match="n_docs is '4'"):
            opened.search_documents(asked, "4")  # type: ignore[arg-type]


def test_settings_and_filters_of_a_call_reach_the_search(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"id": f"id{row}", "text": "x", "odd": row % 2 == 1}) for row in range(40)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "v.npy", random_vectors(40))
    build_index(
        tmp_path / "p.jsonl", tmp_path / "index", bundle=bundle, embeddings=tmp_path / "v.npy",
        factory="IVF4,Flat",
    )  # fmt: skip
    search, seen = VectorIndex.search, []

    def noted(self: VectorIndex, *arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return search(self, *arguments, **options)

    monkeypatch.setattr(VectorIndex, "search", noted)
    with PassageIndex.open(tmp_path / "index") as opened:
        opened.search_documents(random_vectors(2), 3, nprobe=2, rerank_width=7)
        opened.search(random_vectors(2), 3, nprobe=3)
        assert seen == [
            {"nprobe": 2, "rerank_width": 7, "matching": None},
            {"nprobe": 3, "rerank_width": None, "matching": None},
        ]
        odd = {"odd": True}
        assert opened.matching_rows(odd).tolist() == list(range(1, 40, 2))
        assert (opened.search(random_vectors(2), 5, filter=odd).rows % 2 == 1).all()
        for documents in opened.search_documents(random_vectors(2), 5, filter=odd):
            assert [one.metadata for one in documents] == [{"odd": "true"}] * 5


def test_warming_up_reads_a_passage(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    with closing(sqlite3.connect(path / "passages.sqlite")) as connection:
        connection.execute("UPDATE passages SET text = x'00'")
        connection.commit()
    rewrite_manifest(path)
    with PassageIndex.open(path) as opened, pytest.raises(IndexFolderError, match="passage that is not text"):
        opened.warm_up()


def test_a_fork_is_told_to_open_its_own(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with PassageIndex.open(build(random_vectors(20))) as opened:
        calls: list[Callable[[], object]] = [
            lambda: opened.search(random_vectors(1), 1),
            lambda: opened.passages([0]),
            lambda: opened.rows_of(["id0"]),
            lambda: opened.missing_ids(["id0"]),
            lambda: opened.matching_rows(None),
            opened.verify,
            opened.best_placement,
        ]
        with monkeypatch.context() as patch:
            patch.setattr(opened, "_process", -1)
            for call in calls:
                with pytest.raises(
                    ProcessError, match="was loaded in process -1 and cannot be used in its fork"
                ):
                    call()
            opened.close()  # which does nothing there
        assert len(opened.passages([0])) == 1
    with pytest.raises(ClosedError):
        opened.passages([0])


def test_the_corpus_is_that_of_the_passages(build: Callable[..., Path]) -> None:
    vectors = random_vectors(700)
    with PassageIndex.open(build(vectors)) as opened:
        corpus = opened.corpus
        assert opened.corpus is corpus
        assert corpus.fingerprint == manifest_fingerprint(opened.manifest)
        stored = np.asarray(opened._open_part().vectors, np.float32)
    rows = spread_rows(700, 256)
    np.testing.assert_array_equal(corpus.sample, stored[rows])
    asked = rows[::4]
    scores = stored[asked] @ stored.T
    scores[np.arange(len(asked)), asked] = -np.inf
    nearest = scores.max(axis=1)
    assert corpus.nearness == pytest.approx(
        median_nearness(corpus.sample, stored[asked], nearest, 700), rel=1e-5
    )
    assert corpus.calibration is None


def test_a_fingerprint_is_of_files_settings_and_encoder(build: Callable[..., Path]) -> None:
    manifest = IndexManifest.read(build(random_vectors(20)))
    same = replace(manifest, created_by="another", timings={"add_s": 3.0})
    assert manifest_fingerprint(same) == manifest_fingerprint(manifest)
    (name, entry), *others = manifest.files.items()
    different = [
        replace(manifest, search={"nprobe": 3}),
        replace(manifest, encoder=replace(manifest.encoder, fingerprint="a" * 64)),
        replace(manifest, files={name: replace(entry, sha256="b" * 64), **dict(others)}),
    ]
    assert len({manifest_fingerprint(one) for one in [manifest, *different]}) == 4


def test_an_index_of_one_passage(build: Callable[..., Path]) -> None:
    with PassageIndex.open(build(random_vectors(1))) as opened:
        opened.warm_up()
        assert opened.corpus.nearness == -np.inf
        assert [len(found) for found in opened.search_documents(random_vectors(2), 3)] == [1, 1]
        opened.verify()


@pytest.mark.parametrize("factory", ["Flat", "SQ8"])
def test_verifying_tells_how_far_it_is(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(index_module, "_ROWS_AT_ONCE", 16)
    path = build(random_vectors(40), factory=factory)
    told: list[tuple[str, int, int]] = []
    with PassageIndex.open(path) as opened:
        opened.verify(lambda phase, done, count: told.append((phase, done, count)))
    assert [one for one in told if one[0] == "vectors" and one[1]] == [
        ("vectors", 16, 40), ("vectors", 32, 40), ("vectors", 40, 40)
    ]  # fmt: skip
    assert any(one[0] == "exact" for one in told) is (factory != "Flat")


def test_where_an_index_could_be_searched_is_told(build: Callable[..., Path], tmp_path: Path) -> None:
    told = describe_placement(build(random_vectors(20)))
    assert told.startswith(("CPU: ", "GPU "))
    if not faiss_build().gpu:  # whatever the index is
        assert describe_placement(tmp_path / "none") == told


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


def lengthen_the_longest(path: Path) -> None:
    vectors = np.load(path / "vectors.npy").astype(np.float32)
    longest = np.linalg.norm(vectors, axis=1).argmax()
    vectors[longest] *= 1.004
    np.save(path / "vectors.npy", vectors.astype(np.float16))


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (forge_passages, "passages.sqlite has 19 passages, its manifest says 20"),
        (forge_vectors, "the stored vector of row 17 has the norm nan"),
        (lengthen_the_longest, r"the stored vector of row \d+ has the norm .*, more than max_norm "),
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


def test_recall_that_was_measured_without_tuning_is_measured_again(build: Callable[..., Path]) -> None:
    """As of the first version, which sampled with the same seed."""
    path = build(random_vectors(300), factory="IVF16,Flat", recall=1.0)
    rewrite_manifest(path, tuning=None)
    told: list[tuple[str, int, int]] = []
    with PassageIndex.open(path) as opened:
        opened.verify(lambda phase, done, count: told.append((phase, done, count)))
    assert told[-1] == ("exact", 300, 300)
    rewrite_manifest(path, tuning=None, search={"nprobe": 1})
    with PassageIndex.open(path) as opened, pytest.raises(IndexFolderError, match=r"its recall is 0\."):
        opened.verify()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped as Linux says it")
def test_vectors_are_mapped_not_read(build: Callable[..., Path]) -> None:
    path = build(random_vectors(3000))
    with PassageIndex.open(path):
        mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert {str(path / "vectors.npy"), str(path / "index.faiss")} <= mapped


@pytest.mark.parametrize("shape", [(0, E), (9, E + 1), (9, E)])
def test_questions_of_the_recall_fit_the_index(
    tmp_path: Path, build: Callable[..., Path], shape: tuple[int, int]
) -> None:
    np.save(tmp_path / "asked.npy", random_vectors(30, seed=1))
    path = build(random_vectors(300), factory="IVF16,Flat", recall=0.9, queries=tmp_path / "asked.npy")
    with PassageIndex.open(path) as opened:
        opened.verify()
    np.save(path / "queries.npy", np.zeros(shape, np.float32))
    rewrite_manifest(path)
    if shape == (9, E):
        PassageIndex.open(path).close()
        return
    message = rf"queries.npy is \[{shape[0]}, {shape[1]}\], \[Q, 8\] was expected; build the index again"
    with pytest.raises(IndexFolderError, match=message):
        PassageIndex.open(path)


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
