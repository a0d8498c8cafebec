"""Dividing an index: the shards answer as it does, by every command that takes an index."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from click.testing import CliRunner

from ragengine import (
    RagEngine,
    Retriever,
    list_passages,
    shard_index,
    show_passages,
    verify_index,
)
from ragengine.cli.index import index as index_command
from ragengine.errors import IndexFolderError, InputError
from ragengine.indexing.build import build_index
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from tests.support.bundles import E, random_vectors, rewrite_manifest, write_bundle
from tests.support.paths import WORLDFACTS
from tests.support.sharded import COUNT, write_owned_index


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), E)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Callable[[str], Path]:
    """An index of :func:`write_owned_index` by factory."""
    folder = tmp_path_factory.mktemp("shard")
    built: dict[str, Path] = {}

    def make(factory: str) -> Path:
        if factory not in built:
            built[factory] = write_owned_index(folder / str(len(built)), bundle, factory)
        return built[factory]

    return make


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "OPQ2_4,IVF4,PQ2x4", "SQ8"])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_of_an_index_folder_find_what_it_finds(
    build: Callable[[str], Path], tmp_path: Path, factory: str, shards: int
) -> None:
    index = build(factory)
    manifest = shard_index(index, tmp_path / "shards", shards=shards, threads=1)
    assert (manifest.count, len(manifest.shards)) == (COUNT, shards)
    questions = random_vectors(30, E, seed=3)
    questions[:10] = random_vectors(COUNT, E)[:10]  # stored twice, in different shards
    with PassageIndex.open(index) as whole, open_index(tmp_path / "shards") as divided:
        assert isinstance(divided, ShardedIndex)
        for given in ({}, {"rerank_width": 40}, {"filter": {"owner": "sales"}}):
            for n_docs in (1, 7, COUNT + 5):
                found, expected = (one.search(questions, n_docs, **given) for one in (divided, whole))
                np.testing.assert_array_equal(found.rows, expected.rows)
                np.testing.assert_array_equal(found.scores, expected.scores)
            assert divided.search_documents(questions, 7, **given) == whole.search_documents(
                questions, 7, **given
            )
        assert divided.passages(range(COUNT)) == whole.passages(range(COUNT))
        np.testing.assert_array_equal(divided.corpus.sample, whole.corpus.sample)
        assert divided.corpus.nearness == whole.corpus.nearness
        ids = [f"p{row}" for row in (399, 0, 150)]
        assert divided.rows_of(ids) == whole.rows_of(ids)
        assert divided.missing_ids(["p0", "none"]) == ["none"]
        assert divided.passages([399, 0, 200, 0]) == whole.passages([399, 0, 200, 0])
        with pytest.raises(InputError, match="passages have the fields 'owner'"):
            divided.search(questions, 1, filter={"owner": "nobody"})
    assert list(list_passages(tmp_path / "shards", filter={"owner": "sales"}, start=5, limit=70)) == list(
        list_passages(index, filter={"owner": "sales"}, start=5, limit=70)
    )
    assert show_passages(tmp_path / "shards", ["p300", "p2"]) == show_passages(index, ["p300", "p2"])
    assert verify_index(tmp_path / "shards").count == COUNT


def test_shards_without_passages_need_no_folder(
    build: Callable[[str], Path], bundle: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "few.npy", random_vectors(3, E))
    passages = [{"title": "t", "text": f"text {number}"} for number in range(3)]
    build_index(passages, tmp_path / "few", bundle=bundle, embeddings=tmp_path / "few.npy")
    manifest = shard_index(tmp_path / "few", tmp_path / "shards", shards=5)
    assert [(one.first_row, one.count, one.folder is None) for one in manifest.shards] == [
        (0, 0, True), (0, 1, False), (1, 0, True), (1, 1, False), (2, 1, False)
    ]  # fmt: skip
    questions = random_vectors(4, E, seed=1)
    with open_index(tmp_path / "few") as whole, open_index(tmp_path / "shards") as divided:
        assert divided.search_documents(questions, 9) == whole.search_documents(questions, 9)


def test_the_commands_take_shards_for_an_index(
    build: Callable[[str], Path], bundle: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    index, shards = build("IVF8,Flat"), tmp_path / "shards"
    done = run(index_command, ["shard", str(index), str(shards), "--shards", "4"])
    assert done.exit_code == 0, done.output
    assert "4 (100, 100, 100, 100 passages)" in done.output
    refused = run(index_command, ["shard", str(index), str(shards), "--shards", "2"])
    assert isinstance(refused.exception, IndexFolderError)
    assert "--force" in str(refused.exception)
    again = run(index_command, ["shard", str(index), str(shards), "--shards", "2", "--force"])
    assert again.exit_code == 0, again.output
    assert sorted(path.name for path in shards.iterdir()) == ["shard-0000", "shard-0001", "shards.json"]
    told = run(index_command, ["info", str(shards), "--json"])
    assert len(json.loads(told.output)["shards"]) == 2
    assert "is whole: 400 passages" in run(index_command, ["verify", str(shards)]).output
    asked = ["--json", "--n-docs", "5", "who?", "where?"]
    found = [run(index_command, ["search", str(bundle), str(path), *asked]) for path in (index, shards)]
    assert found[0].exit_code == 0, found[0].output
    assert found[0].output == found[1].output
    assert run(index_command, ["delete", str(shards), "p1"]).exit_code == 0
    assert "is whole: 399 passages" in run(index_command, ["verify", str(shards)]).output


def test_a_retriever_swaps_to_shards_and_back(
    build: Callable[[str], Path], bundle: Path, tmp_path: Path
) -> None:
    index = build("Flat")
    shard_index(index, tmp_path / "shards", shards=3)
    with Retriever.load(bundle, index) as retriever:
        expected = retriever.search(["who?", "where?"], 6)
        retriever.swap_index(tmp_path / "shards")
        assert isinstance(retriever.index, ShardedIndex)
        assert retriever.search(["who?", "where?"], 6) == expected
        retriever.swap_index(index)
        assert retriever.search(["who?", "where?"], 6) == expected


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,PQ2x4fs", "IVF4,Flat,RFlat"])
def test_what_cannot_be_divided_is_refused(
    build: Callable[[str], Path], tmp_path: Path, factory: str
) -> None:
    with pytest.raises(InputError, match="cannot be divided among shards"):
        shard_index(build(factory), tmp_path / "shards", shards=2)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("shards", [0, 4097, True, 2.0])
def test_wrong_numbers_of_shards_are_refused(
    build: Callable[[str], Path], tmp_path: Path, shards: int
) -> None:
    with pytest.raises(InputError, match="shards is"):
        shard_index(build("Flat"), tmp_path / "shards", shards=shards)


def test_a_shard_of_another_index_is_refused(build: Callable[[str], Path], tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shard_index(build("Flat"), shards, shards=2)
    shard_index(build("SQ8"), tmp_path / "others", shards=2)
    (shards / "shard-0001").rename(tmp_path / "was")
    (tmp_path / "others" / "shard-0001").rename(shards / "shard-0001")
    with pytest.raises(IndexFolderError, match=r"shard-0001 has 200 passages and the fingerprint"):
        open_index(shards)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"count": 399}, "its shards have 400 passages, it says 399"),
        ({"factory": "IVF9,Flat"}, "common_fingerprint is not that of"),
        ({"quantizer": "x"}, "quantizer"),
        ({"format_version": 2}, "upgrade ragengine"),
        ({"shards": []}, "its shards have 0 passages"),
    ],
)
def test_a_damaged_shards_file_is_refused(
    build: Callable[[str], Path], tmp_path: Path, changed: dict[str, object], told: str
) -> None:
    shard_index(build("Flat"), tmp_path / "shards", shards=2)
    path = tmp_path / "shards" / "shards.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(IndexFolderError, match=told):
        ShardsManifest.read(tmp_path / "shards")


def test_shards_json_says_what_the_index_is(build: Callable[[str], Path], tmp_path: Path) -> None:
    index = build("IVF8,Flat")
    manifest = shard_index(index, tmp_path / "shards", shards=2)
    whole = IndexManifest.read(index)
    for field in dataclasses.fields(IndexManifest):
        if field.name not in ("files", "created_by"):
            assert getattr(manifest, field.name) == getattr(whole, field.name)
    content = json.loads((tmp_path / "shards" / "shards.json").read_text())
    assert (content["format"], content["format_version"]) == ("ragengine-shards", 1)
    assert content["structure"]["lists"] == 8
    assert {IndexManifest.read(tmp_path / "shards" / s["folder"]).count for s in content["shards"]} == {200}


def test_a_shard_that_learned_something_else_is_not_verified(
    build: Callable[[str], Path], tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shard_index(build("IVF8,Flat"), shards, shards=2)
    path = shards / "shard-0001" / "index.faiss"
    faiss_index = faiss.read_index(str(path))
    quantizer = faiss.downcast_index(faiss_index.quantizer)
    centroids = quantizer.reconstruct_n(0, 8)
    centroids[0] *= 2
    quantizer.reset()
    quantizer.add(centroids)
    faiss.write_index(faiss_index, str(path))
    rewrite_manifest(path.parent)
    content = json.loads((shards / "shards.json").read_text())
    content["shards"][1]["fingerprint"] = manifest_fingerprint(IndexManifest.read(path.parent))
    (shards / "shards.json").write_text(json.dumps(content))
    open_index(shards).close()  # the hashes agree
    with pytest.raises(IndexFolderError, match=r"shard-0001/index.faiss was trained otherwise than shards"):
        verify_index(shards)


def test_answers_over_shards_are_those_over_the_index(tmp_path: Path) -> None:
    bundle, index = WORLDFACTS / "bundle", WORLDFACTS / "index"
    shard_index(index, tmp_path / "shards", shards=3)
    lines = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:8]
    questions = [json.loads(line)["question"] for line in lines]
    answers = []
    for searched in (index, tmp_path / "shards"):
        with RagEngine.load(bundle, index=searched, device="cpu", threads=1) as engine:
            answers.append(engine.generate(questions))
    for whole, divided in zip(*answers, strict=True):
        assert (divided.text, divided.score) == (whole.text, whole.score)
        assert divided.documents == whole.documents
