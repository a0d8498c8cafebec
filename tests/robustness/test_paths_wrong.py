"""What is no path at all is refused by every public call that takes one, before it does anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragengine as r
from ragengine.corpus.passage import Passage
from ragengine.errors import BundleError, ExportError, IndexFolderError, InputError, OptionsError
from ragengine.retrieval.index import PassageIndex
from ragengine_export import export_checkpoint, unpack_bundle
from ragengine_train import check_data, read_config
from tests.support.paths import GOLDEN

BUNDLE, INDEX = GOLDEN / "bundle_v4", GOLDEN / "index_v2"
PASSAGE = Passage("a", "title", "text")
Call = Callable[[Any, Path], object]
CALLS: dict[str, tuple[Call, type[r.RagEngineError]]] = {
    "RagEngine.load": (lambda wrong, _: r.RagEngine.load(wrong, INDEX), BundleError),
    "Retriever.load": (lambda wrong, _: r.Retriever.load(wrong, INDEX), BundleError),
    "Generator.load": (lambda wrong, _: r.Generator.load(wrong), BundleError),
    "Bundle.open": (lambda wrong, _: r.Bundle.open(wrong), BundleError),
    "IndexManifest.read": (lambda wrong, _: r.IndexManifest.read(wrong), IndexFolderError),
    "build_index": (lambda wrong, _: r.build_index([], wrong, bundle=BUNDLE), IndexFolderError),
    "build_index, bundle": (lambda wrong, new: r.build_index([], new, bundle=wrong), BundleError),
    "add_passages": (lambda wrong, _: r.add_passages(wrong, [], bundle=BUNDLE), IndexFolderError),
    "upsert_passages": (
        lambda wrong, _: r.upsert_passages(wrong, [PASSAGE], bundle=BUNDLE),
        IndexFolderError,
    ),
    "delete_passages": (lambda wrong, _: r.delete_passages(wrong, ["a"]), IndexFolderError),
    "compact_index": (lambda wrong, _: r.compact_index(wrong), IndexFolderError),
    "verify_index": (lambda wrong, _: r.verify_index(wrong), IndexFolderError),
    "merge_indexes": (lambda wrong, new: r.merge_indexes(INDEX, wrong, new), IndexFolderError),
    "merge_indexes, new": (lambda wrong, _: r.merge_indexes(INDEX, INDEX, wrong), IndexFolderError),
    "shard_index": (lambda wrong, new: r.shard_index(wrong, new, shards=2), IndexFolderError),
    "shard_index, new": (lambda wrong, _: r.shard_index(INDEX, wrong, shards=2), IndexFolderError),
    "gather_shards": (lambda wrong, _: r.gather_shards(wrong), IndexFolderError),
    "set_shard_addresses": (lambda wrong, _: r.set_shard_addresses(wrong, {}), IndexFolderError),
    "export_checkpoint": (lambda wrong, new: export_checkpoint(new, wrong), ExportError),
    "unpack_bundle": (lambda wrong, _: unpack_bundle(BUNDLE, wrong), ExportError),
    "read_config": (lambda wrong, _: read_config(wrong), OptionsError),
    "check_data": (lambda wrong, _: check_data(wrong), OptionsError),
}


@pytest.mark.parametrize("wrong", [None, 5, b"folder", ["folder"]], ids=repr)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_path_is_one_sentence(name: str, wrong: Any, tmp_path: Path) -> None:
    call, error = CALLS[name]
    with pytest.raises(error, match=r"is not a path; give a str or a Path\.$"):
        call(wrong, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [5, b"folder", ["folder"]], ids=repr)
def test_what_is_no_index_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(InputError, match="it must be the path of an index folder, or an object with"):
        r.RagEngine.load(BUNDLE, wrong)


@pytest.mark.parametrize("opened", [r.Retriever.load, lambda _, index: PassageIndex.open(index)])
def test_an_opened_index_is_no_searcher(opened: Callable[[Path, Path], Any]) -> None:
    with (
        opened(BUNDLE, INDEX) as index,
        pytest.raises(InputError, match=r"index is a \w+; give the path of the index folder"),
    ):
        r.RagEngine.load(BUNDLE, index)
