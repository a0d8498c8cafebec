"""What a result was made with."""

from __future__ import annotations

from pathlib import Path

from ragengine_train import read_config
from ragengine_train.provenance import Settings


def test_folders_are_hashed_by_their_files(world: Path, tmp_path: Path) -> None:
    settings = [Settings(read_config(world / "run.toml")) for _ in range(3)]
    (tmp_path / "texts/deep").mkdir(parents=True)
    (tmp_path / "texts/deep/one.txt").write_text("one")
    first = settings[0].contents([str(tmp_path / "texts")])
    assert settings[1].contents([str(tmp_path / "texts")]) == first
    (tmp_path / "texts/deep/one.txt").write_text("two")
    assert settings[2].contents([str(tmp_path / "texts")]) != first
