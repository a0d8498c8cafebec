"""Checks before the first stage: what would otherwise fail hours later."""

from pathlib import Path

from transformers import DPRContextEncoder, DPRQuestionEncoder

from ragengine.errors import OptionsError
from ragengine.evaluation import read_questions
from ragengine.storage.schema import join_errors
from ragengine_export.tokenization import load_tokenizer
from ragengine_train.checkpoint import (
    Parts,
    generator_config,
    load_encoder,
    load_encoder_tokenizer,
    load_generator,
    longest_text,
    pools_as_given,
    vector_size,
)
from ragengine_train.config import DEFAULTS, STAGES, ModelConfig, TrainConfig
from ragengine_train.data import TrainingPassages, read_examples, training_examples
from ragengine_train.encoders import BiEncoder
from ragengine_train.example_order import draw
from ragengine_train.joint import load_joint
from ragengine_train.trainer import freeze


def check(config: TrainConfig, corpus: TrainingPassages, parts: Parts) -> None:
    """Read all questions, and the networks that are trained next with their tokenizers.

    Raises :class:`ragengine.errors.RagEngineError` for the first that is missing or does not fit.
    """
    errors = model_errors(config.model, parts)
    if config.model.n_docs > corpus.indexed:
        errors.append(f"n_docs is {config.model.n_docs}, and there are {corpus.indexed} passages")
    if errors:
        raise OptionsError(f"The table [model] cannot be used: {join_errors(errors)}.")
    _check_precision(config)
    scratch = corpus.scratch()
    for name in STAGES:
        stage = getattr(config, name)
        if stage is not None:
            examples = training_examples(
                config,
                stage,
                scratch,
                needs_passage=stage.needs_passage,
                needs_answer=stage.needs_answer,
            )
            draw([example.group for example in examples], 0, config.seed, stage.sample)
            if stage.uses_passages and not any(example.passage is not None for example in examples):
                errors.append(f"{name}.dpr_weight: no line of its questions has a passage_id; leave it out")
    if errors:
        raise OptionsError(f"The questions do not fit: {join_errors(errors)}.")
    if config.data.dev is not None:
        read_questions(Path(config.data.dev))
        read_examples([config.data.dev], scratch)

    _freeze(config, parts)


def _check_precision(config: TrainConfig) -> None:
    """Raise :class:`OptionsError` for fp16 on a CPU: accelerate would train in float32 without a word."""
    for name in STAGES:
        arguments = {} if (stage := getattr(config, name)) is None else DEFAULTS | stage.arguments
        if arguments.get("fp16") and arguments["use_cpu"]:
            raise OptionsError(
                f"{name}.fp16 is true, and a CPU has float32 and bf16; set bf16 = true, or leave it out."
            )


def _freeze(config: TrainConfig, parts: Parts) -> None:
    """Load the networks of every stage, and freeze in them what the stage says."""
    model = config.model
    if config.encoders is not None:
        question_encoder = load_encoder(parts.question_encoder, DPRQuestionEncoder, model.pooling)
        context_encoder = (
            None
            if model.share_encoders
            else load_encoder(parts.context_encoder, DPRContextEncoder, model.pooling)
        )
        freeze(BiEncoder(question_encoder, context_encoder), config.encoders.freeze)
    if config.generator is not None:
        freeze(load_generator(parts.generator, model, config.generator.dropout), config.generator.freeze)
    if config.joint is not None:
        load_joint(config, parts)


def model_errors(model: ModelConfig, parts: Parts) -> list[str]:
    """Why the networks and their tokenizers make no RAG model; raises :class:`ExportError` for one alone."""
    reader = generator_config(parts.generator)
    sources = {"question_encoder": parts.question_encoder, "context_encoder": parts.context_encoder}
    classes = {"question_encoder": DPRQuestionEncoder, "context_encoder": DPRContextEncoder}
    positions: dict[str, int | None] = {}
    sizes = {}
    for name, source in sources.items():
        load_encoder_tokenizer(source)
        positions[name] = longest_text(source)
        sizes[name] = vector_size(load_encoder(source, classes[name], model.pooling))
    load_tokenizer(parts.generator)
    errors = []
    starts = [source for name, source in sources.items() if source == getattr(model, name)]
    if model.pooling is not None and starts and not any(map(pools_as_given, starts)):
        errors.append(f"pooling is {model.pooling}, but the encoders' own folders say how they pool")
    if sizes["question_encoder"] != sizes["context_encoder"]:
        errors.append(
            f"question_encoder makes vectors of {sizes['question_encoder']} numbers, "
            f"context_encoder of {sizes['context_encoder']}"
        )
    positions["generator"] = getattr(reader, "max_position_embeddings", None)  # T5 has no positions
    for name, network in (
        ("max_question_length", "question_encoder"),
        ("max_passage_length", "context_encoder"),
        ("max_combined_length", "generator"),
        ("max_answer_length", "generator"),
    ):
        length, most = getattr(model, name), positions[network]
        if most is not None and length > most:
            errors.append(f"{name} is {length}, and its network has {most} positions")
    return errors
