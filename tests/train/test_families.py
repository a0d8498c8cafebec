"""Every family is trained: warm-up and joint tuning, to a checkpoint that exports and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    BertConfig,
    DistilBertConfig,
    DPRQuestionEncoder,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from ragengine import RagEngine
from ragengine.errors import ExportError, RagEngineError
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.spec import random_spec
from ragengine_export.families import generator_type
from ragengine_export.loading import load_config, load_model
from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainResult, train
from ragengine_train.checkpoint import RAG_MODELS, load_encoder
from ragengine_train.encoders import question_tokens
from tests.support import training_world

FAST = ("flan-t5",)
STAGE = "logging_steps = 1\nmax_steps = {}\nlearning_rate = 3e-3\nper_device_train_batch_size = 8\n"
ENCODER_STAGE = (
    "logging_steps = 1\nmax_steps = 60\nlearning_rate = 2e-3\nwarmup_steps = 10\n"
    "per_device_train_batch_size = 24\nmax_grad_norm = 1.0\n"
)
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


SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 30}
SMALL |= {"max_position_embeddings": 40, "pad_token_id": 0}
DISTILBERT = {"dim": 24, "n_layers": 1, "n_heads": 2, "hidden_dim": 30, "max_position_embeddings": 40}
ENCODERS: dict[str, tuple[type[PretrainedConfig], dict[str, Any], str]] = {
    "bert": (BertConfig, SMALL | {"initializer_range": 0.3}, "pooler"),
    "roberta": (RobertaConfig, SMALL, "mean"),
    "xlm-roberta": (XLMRobertaConfig, SMALL, "cls"),
    "distilbert": (DistilBertConfig, DISTILBERT, "max"),
    "mpnet": (MPNetConfig, SMALL, "mean_sqrt_len"),
    "electra": (ElectraConfig, SMALL | {"embedding_size": 16}, "weighted_mean"),
    "modernbert": (ModernBertConfig, SMALL, "last_token"),
}
PROMPTED = {"prompts": {"query": "who : ", "document": "town : "}, "similarity_fn_name": "cosine"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("roberta", True, id="sentence-transformers"),
        *(pytest.param(name, False, id=name, marks=pytest.mark.slow) for name in ENCODERS),
    ],
)
def test_encoder_of_every_family_is_trained(
    name: str, sentence: bool, world: Path, one_thread: None, tmp_path: Path
) -> None:
    """What is trained is what the bundle computes: pooling, dense layers, prompts and cosine included."""
    pooling, folder = ENCODERS[name][2], start(world, tmp_path)
    write_encoder(name, folder, world)
    if sentence:
        write_sentence_folder(folder)
    (tmp_path / "start" / "generator").symlink_to(world / "start" / "generator")
    joint = {"joint": STAGE.format(3)} if sentence else {}
    config = training_world.write_config(tmp_path, encoders=ENCODER_STAGE, **joint)
    text = config.read_text().replace("dev_questions = 40", "dev_questions = 4")
    config.write_text(text if sentence else text.replace("[model]", f'[model]\npooling = "{pooling}"'))
    result = train(config, threads=1)
    losses = [loss for _, loss in result.stages["encoders"].losses]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    last = tmp_path / "run" / ("joint" if sentence else "encoders") / "question_encoder"
    trained = load_encoder(str(last), DPRQuestionEncoder)
    work = tmp_path / "run" / "work" / ("checkpoint" if sentence else "index")
    question = "Who is the mayor of Lagiton?"
    with RagEngine.load(work / "bundle", index=tmp_path / "run/index", threads=1) as engine:
        tokenizer = load_tokenizer(str(last))
        ids = torch.tensor([question_tokens(trained, tokenizer, 32, [question])[0].tolist()])
        with torch.no_grad():
            expected = trained.eval()(ids, torch.ones_like(ids)).pooler_output.numpy()
        found = engine.retriever.encode(engine.retriever.tokenize([question]))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert len(engine.generate(question).documents) == 5


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        (
            "distilbert",
            None,
            r"is a bare distilbert model, and nothing .* set model\.pooling to one of cls, ",
        ),
        ("dpr", "mean", r"pooling is mean, but the encoders' own folders say how they pool"),
    ],
)
def test_pooling_is_said_where_it_is_needed(
    name: str, pooling: str | None, message: str, world: Path, tmp_path: Path
) -> None:
    folder = start(world, tmp_path)
    if name == "dpr":
        folder.rmdir()
        folder.symlink_to(world / "start" / "question_encoder")
    else:
        write_encoder(name, folder, world)
    (tmp_path / "start" / "generator").symlink_to(world / "start" / "generator")
    config = training_world.write_config(tmp_path, encoders=STAGE.format(1))
    if pooling is not None:
        config.write_text(config.read_text().replace("[model]", f'[model]\npooling = "{pooling}"'))
    with pytest.raises(RagEngineError, match=message):
        train(config)


def write_encoder(name: str, folder: Path, world: Path) -> None:
    """A bare random encoder that reads the words of the world."""
    tokenizer = load_tokenizer(str(world / "start" / "question_encoder"))
    torch.manual_seed(0)
    kind, sizes, _ = ENCODERS[name]
    AutoModel.from_config(kind(**sizes, vocab_size=len(tokenizer))).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def write_sentence_folder(folder: Path) -> None:
    """Mean pooling of what follows the prompt, a dense layer, prompts, cosine."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    listed = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in modules]
    files = {
        "modules.json": listed,
        "1_Pooling/config.json": {"pooling_mode": ["mean", "max"], "include_prompt": False},
        "2_Dense/config.json": {"in_features": 48, "out_features": 20, "bias": True},
        "config_sentence_transformers.json": PROMPTED,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    generator = torch.Generator().manual_seed(1)
    weights = {
        "linear.weight": torch.randn(20, 48, generator=generator) * 0.2,
        "linear.bias": torch.zeros(20),
    }
    save_file(weights, folder / "2_Dense" / "model.safetensors")


def start(world: Path, folder: Path) -> Path:
    """A run's folder over the world's data; where its question encoder shall be."""
    (folder / "data").symlink_to(world / "data")
    (folder / "start" / "question_encoder").mkdir(parents=True)
    return folder / "start" / "question_encoder"


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
