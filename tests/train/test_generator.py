"""Warm-up on gold passages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import shift_tokens_right

from ragengine.evaluation import exact_match
from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainResult, read_config
from ragengine_train.checkpoint import load_generator
from ragengine_train.config import GeneratorConfig
from ragengine_train.data import TrainingPassages, read_examples
from ragengine_train.dev_metrics import sampled
from ragengine_train.generator import (
    PromptItems,
    WarmUpTrainer,
    collate_prompts,
    gold_answers,
    gold_prompts,
)
from ragengine_train.progress import silent
from ragengine_train.trainer import train_stage, training_arguments


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_batches_are_one(tmp_path: Path, smoothing: float) -> None:
    """Four batches of two and one of eight are the same step, also where answers differ in length."""
    rng = np.random.default_rng(0)
    answers = [[*rng.integers(3, 20, length).tolist(), 2] for length in (1, 2, 2, 9, 3, 1, 12, 5)]
    prompts = [rng.integers(3, 20, 6).tolist() for _ in answers]
    weights = []
    for size, batches in ((8, 1), (2, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
        settings |= {
            "max_steps": 2,
            "learning_rate": 1e-2,
            "label_smoothing_factor": smoothing,
            "optim": "sgd",
        }
        stage = GeneratorConfig(arguments=settings)
        torch.manual_seed(0)
        sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 20}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}
        model = BartForConditionalGeneration(BartConfig(**sizes, **heads, encoder_layers=1, decoder_layers=1))
        items = PromptItems(prompts, answers, [*range(8), *range(8)])
        arguments = training_arguments(stage, tmp_path / f"{size}", 0, 8)
        train_stage(
            model,
            items,
            collate_prompts(1, 2),
            arguments,
            stage="generator",
            progress=silent,
            settings=stage,
            trainer=WarmUpTrainer,
        )
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        if not smoothing and size == 8:
            batch = collate_prompts(1, 2)([items[number] for number in range(8)])
            made = batch.pop("decoder_input_ids")
            torch.testing.assert_close(made, shift_tokens_right(batch["labels"], 1, 2))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_what_the_generator_does_by_itself_is_not_measured(world: Path, unbroken: TrainResult) -> None:
    """facebook/bart-large's own settings force `<s>` and search with beams, which warm-up does not train."""
    config = read_config(world / "run.toml")
    generator = load_generator(str(world / "run/generator"), config.model)
    generator.generation_config.update(forced_bos_token_id=3, num_beams=4, no_repeat_ngram_size=1)
    sample = sampled(
        read_examples([str(config.data.dev)], TrainingPassages.read(config.data.passages)), config
    )
    tokenizers = load_tokenizer(config.model.question_encoder), load_tokenizer(config.model.generator)
    prompts = gold_prompts(
        sample, TrainingPassages.read(config.data.passages), *tokenizers, config.model, None
    )
    texts = gold_answers(generator, tokenizers[1], prompts, config.model.max_answer_length)
    right = [exact_match(text, one.answers) for text, one in zip(texts, sample, strict=True)]
    assert sum(right) / len(right) == unbroken.dev["generator"]["exact_match_gold_passage"]
    assert generator.generation_config.num_beams == 4
