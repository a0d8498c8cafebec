"""A configuration is checked whole, and before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragengine.errors import OptionsError
from ragengine_train import read_config
from tests.support import training_world


def test_what_cannot_be_read_is_no_wrong_toml(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"train.toml cannot be read: No such file or directory; give a"):
        read_config(tmp_path / "train.toml")


def test_every_error_at_once(tmp_path: Path) -> None:
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
label_smoothing_factor = 0.1
[joint]
lr_scheduler_type = "zigzag"
sample = {a = 0.0, b = nan}
max_steps = "many"
gradient_accumulation_steps = 0
[generator]
bf16 = "yes"
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
        "joint.sample.b: nan",
        "joint.max_steps: expected int, found str",
        "encoders.label_smoothing_factor: cannot be set",
        "joint.gradient_accumulation_steps: 0 is less than 1",
        "generator.bf16: expected bool, found str",
        "nowhere.tsv does not exist",
        "nothing.jsonl does not exist",
    ):
        assert part in message, part


def test_generation_settings(tmp_path: Path) -> None:
    training_world.write_data(tmp_path / "data")
    path = training_world.write_config(tmp_path, joint="max_steps = 1")
    path.write_text(path.read_text().replace("num_beams = 2", "num_beem = 2"))
    with pytest.raises(OptionsError, match=r"model\.generation\.num_beem: no field of GenerationConfig"):
        read_config(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('output = "run"', 'output = "."', "output: '.' is the folder of this file or above it"),
        ("seed = 5", "seed = 4294967296", "seed: 4294967296 is not a whole number from 0 to 4294967295"),
        ("num_beams = 2", "use_cache = false", r"model\.generation\.use_cache: no option of ragengine"),
        ("num_beams = 2", "min_length = 30", "min_length is 30, it must be at most"),
        (
            "share_encoders",
            'context_encoder = "c"\nshare_encoders',
            r"context_encoder: with share_encoders",
        ),
        ("max_steps = 1", "refresh_negatives = [3]", r"encoders\.refresh_negatives: hard_negatives is 0"),
        (
            "max_steps = 1",
            "max_steps = 3\nhard_negatives = 1\nrefresh_negatives = [0, 3]",
            r"encoders\.refresh_negatives: 3 is not before the last step, 3",
        ),
        ("max_steps = 1", "max_steps = 0", r"encoders\.max_steps: 0 is less than 1"),
        ("max_steps = 1", "eval_on_start = true", r"encoders\.eval_on_start: cannot be set"),
        ("max_steps = 1", 'report_to = "nobody"', r"encoders: nobody is not supported"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, old: str, new: str, said: str) -> None:
    training_world.write_data(tmp_path / "data")
    path = training_world.write_config(tmp_path, encoders="max_steps = 1")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(OptionsError, match=said):
        read_config(path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("reindex_every = 2", r"joint\.reindex_every: without train_context_encoder the vectors"),
        (
            "train_context_encoder = true\nreindex_every = 9",
            r"joint\.reindex_every: 9 is not before the last",
        ),
        (
            "train_context_encoder = true\nreindex_delay = 0",
            r"joint\.reindex_delay: nothing is encoded again",
        ),
        (
            "train_context_encoder = true\nreindex_every = 2\nreindex_delay = 3",
            r"joint\.reindex_delay: 3 is more than reindex_every, 2",
        ),
        ("dpr_weight = -0.5", r"joint\.dpr_weight: -0\.5"),
        ("dpr_weight_end = nan", r"joint\.dpr_weight_end: nan"),
        ("retrieval_only = true\ndpr_weight = 0.5", r"joint\.dpr_weight: with retrieval_only"),
        ("retrieval_only = true\ndropout = {dropout = 0.1}", r"joint\.dropout: with retrieval_only"),
        ("retrieval_only = true\nlabel_smoothing_factor = 0.1", r"joint\.label_smoothing_factor: DPR's loss"),
        ("retrieval_only = true\ndraw_answers = true", r"joint\.draw_answers: with retrieval_only"),
        ("train_context_encoder = 1", r"joint\.train_context_encoder"),
    ],
)
def test_joint_settings_that_do_not_go_together(tmp_path: Path, settings: str, said: str) -> None:
    training_world.write_data(tmp_path / "data")
    with pytest.raises(OptionsError, match=said):
        read_config(training_world.write_config(tmp_path, joint=f"max_steps = 9\n{settings}\n"))


def test_joint_settings(tmp_path: Path) -> None:
    training_world.write_data(tmp_path / "data")
    body = (
        "max_steps = 9\ntrain_context_encoder = true\nreindex_every = 4\nreindex_delay = 0\ndpr_weight = 1\n"
    )
    stage = read_config(training_world.write_config(tmp_path, joint=body)).joint
    assert stage is not None
    assert (stage.reindex_every, stage.reindex_delay, stage.dpr_weight, stage.dpr_weight_end) == (
        4,
        0,
        1,
        None,
    )
    assert stage.arguments == {"max_steps": 9}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    training_world.write_data(tmp_path / "data")
    (tmp_path / "start/question_encoder").mkdir(parents=True)
    config = read_config(
        training_world.write_config(tmp_path, joint="train = 'data/dev.jsonl'\nmax_steps = 7")
    )
    assert config.output == tmp_path / "run"
    assert config.data.train == [str(tmp_path / "data/train.jsonl")]
    assert config.model.question_encoder == str(tmp_path / "start/question_encoder")
    assert config.model.generator == "start/generator"  # no such folder: a name on the hub
    assert config.joint is not None
    assert config.joint.train == [str(tmp_path / "data/dev.jsonl")]
    assert config.joint.arguments == {"max_steps": 7}


def test_no_stage(tmp_path: Path) -> None:
    training_world.write_data(tmp_path / "data")
    with pytest.raises(OptionsError, match="no stage: give one of the tables encoders, generator, joint"):
        read_config(training_world.write_config(tmp_path))
