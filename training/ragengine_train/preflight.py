"""Checks before the first stage: what would otherwise fail hours later."""

from pathlib import Path
from typing import Any

from transformers import DPRContextEncoder, DPRQuestionEncoder

from ragengine.errors import OptionsError
from ragengine.evaluation import read_questions
from ragengine.storage.schema import join_errors
from ragengine_export.tokenization import load_tokenizer
from ragengine_train.checkpoint import (
    Parts,
    encoder_config,
    generator_config,
    load_encoder,
    load_generator,
    load_rag,
)
from ragengine_train.config import STAGES, ModelConfig, TrainConfig
from ragengine_train.data import TrainingPassages, read_examples, training_examples
from ragengine_train.encoders import BiEncoder
from ragengine_train.example_order import draw
from ragengine_train.trainer import freeze


def check(config: TrainConfig, corpus: TrainingPassages, parts: Parts) -> None:
    """Read all questions, and the networks that are trained next with their tokenizers.

    Raises :class:`ragengine.errors.RagEngineError` for the first that is missing or does not fit.
    """
    errors = _model_errors(config.model, parts)
    if config.model.n_docs > corpus.indexed:
        errors.append(f"n_docs is {config.model.n_docs}, and there are {corpus.indexed} passages")
    if errors:
        raise OptionsError(f"The table [model] cannot be used: {join_errors(errors)}.")
    scratch = corpus.scratch()
    for name in STAGES:
        stage = getattr(config, name)
        if stage is not None:
            examples = training_examples(config, stage, scratch, needs_passage=name != "joint")
            draw([example.group for example in examples], 0, config.seed, stage.sample)
    if config.data.dev is not None:
        read_questions(Path(config.data.dev))
        read_examples([config.data.dev], scratch)

    _freeze(config, parts)


def _freeze(config: TrainConfig, parts: Parts) -> None:
    """Load the networks of every stage, and freeze in them what the stage says."""
    model = config.model
    if config.encoders is not None:
        question_encoder = load_encoder(parts.question_encoder, DPRQuestionEncoder)
        context_encoder = (
            None if model.share_encoders else load_encoder(parts.context_encoder, DPRContextEncoder)
        )
        freeze(BiEncoder(question_encoder, context_encoder), config.encoders.freeze)
    if config.generator is not None:
        freeze(load_generator(parts.generator, model), config.generator.freeze)
    if config.joint is not None:
        freeze(load_rag(parts, model), config.joint.freeze)


def _model_errors(model: ModelConfig, parts: Parts) -> list[str]:
    question, passage = encoder_config(parts.question_encoder), encoder_config(parts.context_encoder)
    reader = generator_config(parts.generator)
    for source in dict.fromkeys((parts.question_encoder, parts.context_encoder, parts.generator)):
        load_tokenizer(source)
    errors = []
    if _dimension(question) != _dimension(passage):
        errors.append(
            f"question_encoder makes vectors of {_dimension(question)} numbers, "
            f"context_encoder of {_dimension(passage)}"
        )
    for name, config in (
        ("max_question_length", question),
        ("max_passage_length", passage),
        ("max_combined_length", reader),
        ("max_answer_length", reader),
    ):
        length, most = getattr(model, name), getattr(config, "max_position_embeddings", None)  # T5 has none
        if most is not None and length > most:
            errors.append(f"{name} is {length}, and its network has {most} positions")
    return errors


def _dimension(encoder: Any) -> int:
    """Numbers in a vector of an encoder with this config."""
    return int(getattr(encoder, "projection_dim", 0) or encoder.hidden_size)
