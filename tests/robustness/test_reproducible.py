"""The same input gives the same bytes, as the page on versioning promises for bundles and indexes."""

import json
from pathlib import Path

from ragengine.indexing.build import build_index
from ragengine.storage.folders import MANIFEST
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_checkpoint_exported_twice_is_one_bundle(pair: Pair, tmp_path: Path) -> None:
    export_checkpoint(pair.checkpoint.source, tmp_path / "bundle", precision="fp32", check=False)
    assert contents(tmp_path / "bundle") == contents(pair.bundle)


def test_passages_indexed_twice_are_one_index_but_for_the_times(pair: Pair, tmp_path: Path) -> None:
    embeddings = pair.checkpoint.embeddings_file
    build_index(pair.checkpoint.passages_file, tmp_path / "index", bundle=pair.bundle, embeddings=embeddings)
    once, twice = contents(pair.bundle.parent / "index"), contents(tmp_path / "index")
    manifests = [json.loads(files.pop(MANIFEST)) for files in (once, twice)]
    assert once == twice
    assert [manifest.pop("timings") != {} for manifest in manifests] == [True, True]
    assert manifests[0] == manifests[1]
