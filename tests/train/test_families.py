"""Every family is trained: warm-up and joint tuning, to a checkpoint that exports and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from ragengine import RagEngine
from ragengine.errors import ExportError
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.spec import random_spec
from ragengine_export.families import generator_type
from ragengine_export.loading import load_config, load_model
from ragengine_train import TrainResult, train
from ragengine_train.checkpoint import RAG_MODELS
from tests.support import training_world

FAST = ("flan-t5",)
STAGE = "logging_steps = 1\nmax_steps = {}\nlearning_rate = 3e-3\nper_device_train_batch_size = 8\n"
SIZES = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_heads": 2, "decoder_heads": 2}
SIZES |= {"positions": 200, "generator_tokens": 400, "activation": "relu"}


def write_generator(name: str, folder: Path) -> None:
    """A random generator with its family's own tokenizer."""
    spec = random_spec(7, **SIZES, tied=name != "flan-t5")
    tokenizer = GENERATORS[name].tokenizer(
        np.random.default_rng(0), spec.generator_tokens, folder / "trained"
    )
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(GENERATORS[name].config(spec, len(tokenizer), tokenizer))
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 9, 11, 30]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids[:, :3]).logits


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in GENERATORS]
)
def test_generator_of_every_family_is_trained(
    name: str, world: Path, one_thread: None, tmp_path: Path
) -> None:
    kind = "sequence" if name in ("flan-t5", "pegasus") else "token"
    result = run(world, name, kind, tmp_path)
    for stage in ("generator", "joint"):
        losses = [loss for _, loss in result.stages[stage].losses]
        assert np.mean(losses[-3:]) < np.mean(losses[:3])
    checkpoint = tmp_path / "run" / "checkpoint"
    trained = tmp_path / "run" / "joint" / "generator"
    model_type = load_config(str(trained)).model_type
    generator = load_model(generator_type(name, model_type).model, str(trained))
    whole = load_model(RAG_MODELS[kind], str(checkpoint))
    torch.testing.assert_close(logits(whole.generator), logits(generator))
    bundle, index = tmp_path / "run/work/checkpoint/bundle", tmp_path / "run/index"
    with RagEngine.load(bundle, index=index, threads=1) as engine:
        assert len(engine.generate("Who is the mayor of Lagiton?").documents) == 5


def run(world: Path, name: str, kind: str, folder: Path) -> TrainResult:
    """Train a few steps of both stages in ``folder``."""
    (folder / "data").symlink_to(world / "data")
    (folder / "start").mkdir()
    (folder / "start" / "question_encoder").symlink_to(world / "start" / "question_encoder")
    write_generator(name, folder / "start" / "generator")
    config = training_world.write_config(folder, kind=kind, generator=STAGE.format(12), joint=STAGE.format(8))
    text = config.read_text().replace("dev_questions = 40", "dev_questions = 4")
    config.write_text(text)
    return train(config, threads=1)


def test_a_generator_that_does_not_say_where_answers_begin(world: Path, tmp_path: Path) -> None:
    write_generator("mbart", tmp_path / "start" / "generator")
    file = tmp_path / "start" / "generator" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decoder_start_token_id": None}))
    (tmp_path / "data").symlink_to(world / "data")
    (tmp_path / "start" / "question_encoder").symlink_to(world / "start" / "question_encoder")
    with pytest.raises(ExportError, match="has no decoder_start_token_id, which training needs"):
        train(training_world.write_config(tmp_path, generator=STAGE.format(1)))
