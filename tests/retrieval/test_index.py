"""An open index: what it says of itself, its passages, and the corpus that it searches."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.confidence.corpus import median_nearness, spread_rows
from ragengine.errors import ClosedError, IndexFolderError, InputError, ProcessError
from ragengine.indexing.build import build_index
from ragengine.retrieval import index as index_module
from ragengine.retrieval.gpu.searcher import faiss_build
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from ragengine.retrieval.open_index import describe_placement
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import E, random_vectors, rewrite_manifest


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
            opened.search_documents(asked, "4")


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
