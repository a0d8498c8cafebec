"""Reading checkpoints: transformers loads them, so every layout it knows is known here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    DPRContextEncoder,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

from ragengine.errors import ExportError
from ragengine_export.choices import GivenPooling
from ragengine_export.encoders import EncoderCheckpoint, encoder_of, for_side, load_encoder
from ragengine_export.families import Graphs, generator_shape, generator_type
from ragengine_export.graphs.generator import GeneratorShape
from ragengine_export.loading import load_config, load_model, load_with_left_over, torch_state
from ragengine_export.tokenization import check_padding, load_fast_tokenizer
from ragengine_export.weights import State

ARCHITECTURES = {
    "RagTokenForGeneration": RagTokenForGeneration,
    "RagSequenceForGeneration": RagSequenceForGeneration,
}


@dataclass(frozen=True)
class GeneratorCheckpoint:
    """A generator: its torch model, sizes, graphs, weights by graph name, and tokenizer."""

    name: str
    model: PreTrainedModel
    shape: GeneratorShape
    graphs: Graphs
    state: State
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Checkpoint:
    """A whole RAG model as transformers loads it, in float32."""

    source: str
    architecture: str
    config: RagConfig
    generation_config: GenerationConfig
    unread_generation: dict[str, Any]
    """What the checkpoint's `generation_config.json` sets and transformers' ``generate`` does not read."""
    question_encoder: EncoderCheckpoint
    context_encoder: EncoderCheckpoint | None
    generator: GeneratorCheckpoint
    notes: tuple[str, ...] = ()
    """What a user should know about where its parts come from."""


def load_checkpoint(
    source: str, context_encoder: str | None = None, pooling: GivenPooling | None = None
) -> Checkpoint:
    """Load a RAG checkpoint: a folder, or the name of a model on the hub."""
    config = load_config(source)
    if not isinstance(config, RagConfig):
        raise ExportError(
            f"{source} is a {config.model_type} checkpoint, not a RAG one; "
            "join separate checkpoints with --question-encoder and --generator."
        )
    architecture = (config.architectures or ["RagModel"])[0]
    if architecture == "RagModel":  # the parts, which either class marginalises over
        architecture = "RagTokenForGeneration"
    if architecture not in ARCHITECTURES:
        raise ExportError(f"{source} is a {architecture}; supported are {' and '.join(ARCHITECTURES)}.")
    # As `ragengine train` and `unpack` write it.
    has_folder = Path(source, "question_encoder", "modules.json").is_file()
    # A folder has the weights of its own; and a pooler, which a BERT may be without, is read for one pooling.
    optional = "rag.question_encoder." if has_folder else "rag.question_encoder.pooler."
    rag, left_over = load_with_left_over(ARCHITECTURES[architecture], source, optional)
    has_own = any(name.startswith("rag.ctx_encoder.") for name in left_over)
    notes = []
    beside = Path(source, "context_encoder")
    if context_encoder is None and (beside / "config.json").is_file():
        context_encoder = str(beside)
        notes.append("the passage encoder is the one in the checkpoint's folder context_encoder")
    elif has_own and context_encoder is not None:
        notes.append("the checkpoint's own passage encoder, rag.ctx_encoder, is left out: another was given")
    elif has_own:
        rag, _ = load_with_left_over(_with_context_encoder(ARCHITECTURES[architecture]), source, optional)
        notes.append("the passage encoder is the checkpoint's own, rag.ctx_encoder of end-to-end training")
    # RagSequence's `generate` decodes with its generator, and so with the generator's own config.
    owner = rag if architecture == "RagTokenForGeneration" else rag.generator
    tokenizers = {
        part: load_fast_tokenizer(source, f"{part}_tokenizer", getattr(config, part))
        for part in ("question_encoder", "generator")
    }
    if has_folder:
        question = load_encoder(str(Path(source, "question_encoder")), "question")
    else:
        question = encoder_of(source, rag.question_encoder, tokenizers["question_encoder"], pooling)
    passage = None
    if context_encoder is not None:
        passage = load_encoder(context_encoder, "passage", pooling)
    elif has_own:
        passage = encoder_of(source, rag.rag.ctx_encoder, tokenizers["question_encoder"])
    return Checkpoint(
        source=source,
        architecture=architecture,
        config=config,
        generation_config=owner.generation_config,
        unread_generation={} if owner is rag else _unread(source, owner.generation_config),
        question_encoder=question,
        context_encoder=passage,
        generator=_generator(source, rag.generator, tokenizers["generator"]),
        notes=(*notes, *_checked_pair(question, passage, pooling)),
    )


def join_checkpoints(
    question_encoder: str,
    generator: str,
    context_encoder: str | None = None,
    pooling: GivenPooling | None = None,
) -> Checkpoint:
    """Make one RAG-Token model of two checkpoints, with ``RagConfig``'s defaults.

    transformers' `from_pretrained_question_encoder_generator` is the reference.  A sentence-transformers
    model encodes passages too, unless a ``context_encoder`` is given.
    """
    question = load_encoder(question_encoder, "question", pooling)
    passage = None
    if context_encoder is not None:
        passage = load_encoder(context_encoder, "passage", pooling)
    elif question.folder is not None:
        passage = for_side(question, "passage")
    notes = _checked_pair(question, passage, pooling)
    reader = load_model(generator_type(generator, load_config(generator).model_type).model, generator)
    # The configs alone: transformers 5 re-initialises models that are handed to RagTokenForGeneration.
    config = RagConfig.from_question_encoder_generator_configs(question.model.config, reader.config)
    return Checkpoint(
        source=f"{question_encoder} + {generator}",
        architecture="RagTokenForGeneration",
        config=config,
        generation_config=GenerationConfig.from_model_config(config),
        unread_generation={},
        question_encoder=question,
        context_encoder=passage,
        generator=_generator(generator, reader, load_fast_tokenizer(generator)),
        notes=tuple(notes),
    )


def _checked_pair(
    question: EncoderCheckpoint, passage: EncoderCheckpoint | None, pooling: GivenPooling | None
) -> list[str]:
    """What a user should know about the two encoders; raises :class:`ExportError` where they do not fit."""
    encoders = [question] if passage is None else [question, passage]
    if pooling is not None and not any(encoder.pools_as_given for encoder in encoders):
        raise ExportError(
            f"pooling is {pooling}, but the encoders' own folders say how they pool; leave out --pooling."
        )
    if passage is not None and passage.similarity != question.similarity:
        raise ExportError(
            f"The vectors of {question.name} are compared by {question.similarity}, those of {passage.name} "
            f"by {passage.similarity}; they do not belong together."
        )
    silent = {
        encoder.name for encoder in encoders if encoder.folder and not encoder.folder.similarity_is_said
    }
    return [
        f"{name} does not say how its vectors are compared: by cosine, as sentence-transformers takes it; "
        'for inner products set "similarity_fn_name": "dot" in its config_sentence_transformers.json'
        for name in sorted(silent)
    ]


def _unread(source: str, read: GenerationConfig) -> dict[str, Any]:
    """What `generation_config.json` of a checkpoint sets, if it has one, and ``read`` has otherwise."""
    try:
        unread = GenerationConfig.from_pretrained(source)
    except OSError:
        return {}
    return {
        name: value
        for name, value in unread.to_diff_dict().items()
        if name not in ("transformers_version", "_from_model_config")
        and value is not None
        and value != getattr(read, name, None)
    }


def _with_context_encoder(cls: Any) -> Any:
    """``cls`` with the passage encoder that end-to-end training adds to it.

    `RagModel.set_context_encoder_for_training` saves its weights, and no config: it has the question
    encoder's sizes and reads the same vocabulary.
    """

    class WithContextEncoder(cls):  # type: ignore[misc]  # a class of transformers, which is Any
        def __init__(self, config: Any, **parts: Any) -> None:
            super().__init__(config=config, **parts)
            self.rag.ctx_encoder = DPRContextEncoder(config.question_encoder)

    return WithContextEncoder


def _generator(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GeneratorCheckpoint:
    """Sizes and weights of a generator, by the names of its graphs."""
    state = torch_state(model)
    shape = generator_shape(name, model.config, state)
    graphs = generator_type(name, model.config.model_type).graphs
    if shape.max_positions is not None:
        check_padding(name, tokenizer)
    return GeneratorCheckpoint(name, model, shape, graphs, state, tokenizer)
