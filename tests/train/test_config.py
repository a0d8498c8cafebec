"""A configuration is checked whole, and before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragengine.errors import OptionsError
from ragengine_train import read_config
from tests.train import toy


def test_every_fault_at_once(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(
        """
output = 3
colour = "red"
[data]
passages = "nowhere.tsv"
train = "nothing.jsonl"
[model]
question_encoder = "q"
generator = "g"
type = "both"
n_docs = 0
depth = 4
[model.generation]
num_beem = 4
[encoders]
learning_rat = 1e-4
seed = 4
hard_negatives = -1
[joint]
lr_scheduler_type = "zigzag"
sample = {a = 0.0}
"""
    )
    with pytest.raises(OptionsError) as caught:
        read_config(path)
    message = str(caught.value)
    for part in (
        "output: missing",
        "colour: no such setting",
        "model.type: 'both' is not one of",
        "model.n_docs: 0",
        "model.depth: no such setting",
        "encoders.learning_rat: neither",
        "encoders.seed: cannot be set",
        "encoders.hard_negatives: -1",
        "zigzag",
        "joint.sample.a: 0.0",
        "nowhere.tsv does not exist",
        "nothing.jsonl does not exist",
    ):
        assert part in message, part


def test_generation_settings(tmp_path: Path) -> None:
    toy.write_data(tmp_path / "data")
    path = toy.write_config(tmp_path, joint="max_steps = 1")
    path.write_text(path.read_text().replace("num_beams = 2", "num_beem = 2"))
    with pytest.raises(OptionsError, match=r"model\.generation\.num_beem: no field of GenerationConfig"):
        read_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    toy.write_data(tmp_path / "data")
    (tmp_path / "start/question_encoder").mkdir(parents=True)
    config = read_config(toy.write_config(tmp_path, joint="train = 'data/dev.jsonl'\nmax_steps = 7"))
    assert config.output == tmp_path / "run"
    assert config.data.train == [str(tmp_path / "data/train.jsonl")]
    assert config.model.question_encoder == str(tmp_path / "start/question_encoder")
    assert config.model.generator == "start/generator"  # no such folder: a name on the hub
    assert config.joint is not None
    assert config.joint.train == [str(tmp_path / "data/dev.jsonl")]
    assert config.joint.arguments == {"max_steps": 7}


def test_no_stage(tmp_path: Path) -> None:
    toy.write_data(tmp_path / "data")
    with pytest.raises(OptionsError, match="no stage: give one of the tables encoders, generator, joint"):
        read_config(toy.write_config(tmp_path))
