"""Folders of earlier versions open and give the answers that were recorded with them.

``golden/`` holds one bundle and one index of each format version, written by the version that wrote that
format (``golden/make.py``), and its answers.  They are never written again.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import RagEngine
from ragengine.bundle import manifest as bundle_format
from ragengine.bundle.bundle import Bundle
from ragengine.errors import BundleError, IndexFolderError
from ragengine.indexing.shard import shard_index
from ragengine.retrieval import manifest as index_format
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding import manifest as shards_format
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.storage.ownership import SHARDS
from tests.robustness.golden import ANSWERS, completed
from tests.support.bundles import rewrite_manifest
from tests.support.paths import GOLDEN

RECORDS: list[dict[str, Any]] = json.loads(ANSWERS.read_text("utf-8"))
PAIRS: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
for _record in RECORDS:
    PAIRS[_record["bundle"], _record["index"]].append(_record)
MOST_BYTES = 700_000  # golden files stay in the repository for ever


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_a_golden_pair_gives_the_recorded_answers(pair: tuple[str, str], tmp_path: Path) -> None:
    bundle, index = (completed(name, tmp_path) for name in pair)
    with RagEngine.load(bundle, index=index, device="cpu", threads=1) as engine:
        for record in PAIRS[pair]:
            answer = engine.generate(record["question"], **record["options"])
            assert answer.raw_text == record["text"]
            scores = {document.id: document.score for document in answer.documents}
            assert list(scores) == list(record["documents"])
            assert scores == pytest.approx(record["documents"], abs=1e-4)
            found = [list(hypothesis.token_ids) for hypothesis in answer.hypotheses]
            assert found == [hypothesis["token_ids"] for hypothesis in record["hypotheses"]]
            for hypothesis, recorded in zip(answer.hypotheses, record["hypotheses"], strict=True):
                assert hypothesis.score == pytest.approx(recorded["score"], abs=1e-4)
                assert hypothesis.log_prob == pytest.approx(recorded["log_prob"], abs=1e-4)


def test_a_golden_passage_encoder_gives_the_recorded_vector() -> None:
    """Its graph is beside the question encoder's, and shares most of its weights."""
    opened = Bundle.open(GOLDEN / "bundle_v4")
    assert opened.manifest.passage_encoder is not None
    encoder = TextEncoder.load(opened, opened.manifest.passage_encoder, device="cpu", threads=1)
    (vector,) = encoder.encode_passages([("Iceland", "an island in the north")])
    recorded = [0.18109, 1.33182, 0.75139, 0.07100, -0.22505, -0.56083, 0.66313, -1.37725]
    assert vector.tolist() == pytest.approx(recorded, abs=1e-4)


def test_a_golden_index_has_its_metadata() -> None:
    with PassageIndex.open(GOLDEN / "index_v2") as opened:
        found = opened.passages(range(opened.count))
        assert [p.metadata for p in found] == [{"row": str(row), "half": str(row // 10)} for row in range(20)]
        assert opened.matching_rows({"half": 1}).tolist() == list(range(10, 20))


def test_every_version_that_should_open_is_there() -> None:
    """An old version cannot be written later: the commit that raises the version has to add its folder."""
    bundles = {f"bundle_v{n}" for n in range(bundle_format.OLDEST_VERSION, bundle_format.FORMAT_VERSION)}
    indexes = {f"index_v{n}" for n in range(1, index_format.FORMAT_VERSION + 1)}
    there = {path.name for path in GOLDEN.iterdir() if path.is_dir() and "_v" in path.name}
    assert bundles | indexes <= there
    assert there == {name for pair in PAIRS for name in pair}


@pytest.mark.parametrize("version", range(1, shards_format.FORMAT_VERSION + 1))
def test_golden_shards_are_those_of_the_golden_index(version: int, tmp_path: Path) -> None:
    """What FAISS and SQLite write may differ by their versions, so the hashes of the shards are put in."""
    index, shards = completed("index_v2", tmp_path), tmp_path / "shards"
    golden = json.loads((GOLDEN / f"shards_v{version}.json").read_text("utf-8"))
    shard_index(index, shards, shards=len(golden["shards"]))
    written = json.loads((shards / SHARDS).read_text("utf-8"))
    for shard, ours in zip(golden["shards"], written["shards"], strict=True):
        shard["fingerprint"] = ours["fingerprint"]
    golden["quantizer"], golden["common_fingerprint"] = written["quantizer"], written["common_fingerprint"]
    (shards / SHARDS).write_text(json.dumps(golden), "utf-8")
    with PassageIndex.open(index) as whole, open_index(shards) as divided:
        questions = whole.vectors(np.arange(whole.count))
        assert divided.search_documents(questions, 7) == whole.search_documents(questions, 7)
    addresses = [entry.addresses for entry in ShardsManifest.read(shards).shards]
    assert addresses == [(), (), ("http://shard-2:8000",), ()]
    if version == shards_format.FORMAT_VERSION:  # what is written today has every field, with the same values
        for entry, ours in zip(golden["shards"], written["shards"], strict=True):
            assert {**entry, "addresses": []} == ours
        kept = golden.keys() - {"shards", "created_by"}
        assert {name: written[name] for name in kept} == {name: golden[name] for name in kept}


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < MOST_BYTES


def test_a_newer_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle")
    shutil.copytree(GOLDEN / "index_v1", tmp_path / "index")
    bundles, indexes, reads = (
        bundle_format.FORMAT_VERSION,
        index_format.FORMAT_VERSION,
        "this ragengine reads up to",
    )
    rewrite_manifest(tmp_path / "bundle", format_version=bundles + 1)
    rewrite_manifest(tmp_path / "index", format_version=indexes + 7)
    with pytest.raises(BundleError, match=f"version {bundles + 1}, {reads} {bundles};"):
        Bundle.open(tmp_path / "bundle")
    with pytest.raises(IndexFolderError, match=f"version {indexes + 7}, {reads} {indexes};"):
        PassageIndex.open(tmp_path / "index")


def test_a_version_before_the_oldest_is_refused_with_all_numbers(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle")
    rewrite_manifest(tmp_path / "bundle", format_version=bundle_format.OLDEST_VERSION - 1)
    oldest, newest = bundle_format.OLDEST_VERSION, bundle_format.FORMAT_VERSION
    reads = f"version 1, this ragengine reads {oldest} to {newest}; write"
    with pytest.raises(BundleError, match=reads):
        Bundle.open(tmp_path / "bundle")
