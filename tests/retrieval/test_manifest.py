"""The manifest of an index: whether its recall is reached, and a history that is flat once it is read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ragengine.retrieval.manifest import IndexManifest, Tuning
from tests.support.paths import GOLDEN


@pytest.mark.parametrize(
    ("target", "recall", "reached"),
    [
        (None, None, True),
        (None, 0.1, True),
        (0.9, None, True),
        (0.9, 0.9, True),
        (0.9, 0.91, True),
        (0.9, 0.899, False),
    ],
)
def test_a_recall_is_reached_where_it_is_the_target_or_more(
    target: float | None, recall: float | None, reached: bool
) -> None:
    tuning = None if target is None else Tuning(target, 5, 100, "passages")
    manifest = IndexManifest.read(GOLDEN / "index_v2")
    assert replace(manifest, recall=recall, tuning=tuning).recall_reached is reached


def test_a_nested_history_is_flat_once_it_is_read(tmp_path: Path) -> None:
    path = shutil.copytree(GOLDEN / "index_v2", tmp_path / "index") / "manifest.json"
    content = json.loads(path.read_text())
    first, second = {"passages": "a"}, {"passages": "b"}
    nested = {"merged": [{"merged": [first, second]}, first], "odd": [1]}
    path.write_text(json.dumps({**content, "created_from": nested}))
    assert IndexManifest.read(tmp_path / "index").created_from == {"merged": [first, second, first]}
