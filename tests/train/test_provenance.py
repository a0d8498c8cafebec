"""What a result was made with."""

from __future__ import annotations

from pathlib import Path

from ragengine_train import read_config
from ragengine_train.provenance import Settings
from tests.support import training_world


def test_folders_are_hashed_by_their_files(world: Path, tmp_path: Path) -> None:
    settings = [Settings(read_config(world / "run.toml")) for _ in range(3)]
    (tmp_path / "texts/deep").mkdir(parents=True)
    (tmp_path / "texts/deep/one.txt").write_text("one")
    first = settings[0].contents([str(tmp_path / "texts")])
    assert settings[1].contents([str(tmp_path / "texts")]) == first
    (tmp_path / "texts/deep/one.txt").write_text("two")
    assert settings[2].contents([str(tmp_path / "texts")]) != first


def test_settings_that_earlier_versions_did_not_have(world: Path) -> None:
    """They are named where they say something, so that an older run goes on; a delay of 0 says something."""
    body = "max_steps = 9\n"
    plain = Settings(read_config(training_world.write_config(world, output="plain", joint=body)))
    assert not plain.of("joint")["joint"].keys() & {
        "train_context_encoder",
        "reindex_delay",
        "dpr_weight_end",
    }
    assert plain.made_of("checkpoint")["context_encoder"] == "start"
    body += "train_context_encoder = true\nreindex_every = 4\nreindex_delay = 0\ndpr_weight_end = 0.0\n"
    given = Settings(read_config(training_world.write_config(world, output="given", joint=body)))
    assert given.of("joint")["joint"]["reindex_delay"] == 0
    assert given.of("joint")["joint"]["dpr_weight_end"] == 0.0
    assert given.made_of("checkpoint")["context_encoder"] == "joint"
    assert given.made_of("joint")["context_encoder"] == "start"
