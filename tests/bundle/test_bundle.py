"""An opened bundle: which files it needs, and which encoder an index is bound to.

tests/robustness/test_agreement.py shows that every part has to fit the others.
"""

import json
from pathlib import Path

import pytest

from ragengine import Bundle
from ragengine.errors import BundleError
from ragengine.storage.folders import MANIFEST
from tests.support.bundles import write_bundle


def test_an_index_is_bound_to_the_encoder_of_passages(tmp_path: Path) -> None:
    both = Bundle.open(write_bundle(tmp_path / "both", 8))
    assert both.index_encoder == both.manifest.passage_encoder
    one = Bundle.open(write_bundle(tmp_path / "one", 8, passage_encoder=False))
    assert one.index_encoder == one.manifest.question_encoder


def test_a_file_is_named_by_its_parts(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", 8))
    assert bundle.file("generator", "decoder.onnx").is_file()


@pytest.mark.parametrize(
    "name", ["question_encoder/encoder.onnx", "passage_encoder/tokenizer.json", "generator/cross.onnx"]
)
def test_a_file_that_will_be_opened_has_to_be_listed(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "bundle", 8)
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    del content["files"][name]
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")
    with pytest.raises(BundleError, match=f"is damaged: the manifest does not list {name}; write or copy"):
        Bundle.open(folder)
