"""Reading checkpoints: transformers loads them, so every layout it knows is known here."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    DPRContextEncoder,
    DPRQuestionEncoder,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

from ragengine.bundle.manifest import TokenizerSpec
from ragengine.errors import ExportError
from ragengine.messages import short_repr
from ragengine_export.conversion.convert import converted_state
from ragengine_export.families import Graphs, generator_shape, generator_type
from ragengine_export.graphs.bert import BertShape
from ragengine_export.graphs.generator import GeneratorShape
from ragengine_export.graphs.layers import ACTIVATIONS
from ragengine_export.untrusted import check_config, check_weights
from ragengine_export.weights import State

ARCHITECTURES = {
    "RagTokenForGeneration": RagTokenForGeneration,
    "RagSequenceForGeneration": RagSequenceForGeneration,
}


@dataclass(frozen=True)
class EncoderCheckpoint:
    """A question or passage encoder: its torch model, sizes, weights by graph name, and tokenizer."""

    name: str
    model: PreTrainedModel
    shape: BertShape
    state: State
    tokenizer: PreTrainedTokenizerBase


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


def load_checkpoint(source: str, context_encoder: str | None = None) -> Checkpoint:
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
    rag = load_model(ARCHITECTURES[architecture], source)
    # RagSequence's `generate` decodes with its generator, and so with the generator's own config.
    owner = rag if architecture == "RagTokenForGeneration" else rag.generator
    return Checkpoint(
        source=source,
        architecture=architecture,
        config=config,
        generation_config=owner.generation_config,
        unread_generation={} if owner is rag else _unread(source, owner.generation_config),
        question_encoder=_encoder(
            source, rag.question_encoder, _tokenizer(source, "question_encoder_tokenizer")
        ),
        context_encoder=_context_encoder(context_encoder),
        generator=_generator(source, rag.generator, _tokenizer(source, "generator_tokenizer")),
    )


def join_checkpoints(question_encoder: str, generator: str, context_encoder: str | None = None) -> Checkpoint:
    """Make one RAG-Token model of two checkpoints, with ``RagConfig``'s defaults.

    transformers' `from_pretrained_question_encoder_generator` is the reference.
    """
    kind = _supported(question_encoder, dpr=DPRQuestionEncoder, bert=BertModel)
    encoder = load_model(kind, question_encoder)
    reader = load_model(generator_type(generator, load_config(generator).model_type).model, generator)
    # The configs alone: transformers 5 re-initialises models that are handed to RagTokenForGeneration.
    config = RagConfig.from_question_encoder_generator_configs(encoder.config, reader.config)
    return Checkpoint(
        source=f"{question_encoder} + {generator}",
        architecture="RagTokenForGeneration",
        config=config,
        generation_config=GenerationConfig.from_model_config(config),
        unread_generation={},
        question_encoder=_encoder(question_encoder, encoder, _tokenizer(question_encoder)),
        context_encoder=_context_encoder(context_encoder),
        generator=_generator(generator, reader, _tokenizer(generator)),
    )


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


def tokenizer_spec(tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizerSpec:
    """What the runtime must know beside `tokenizer.json`.

    Whether ``decode`` cleans up spaces depends on the tokenizer's flag, its kind and the version of
    transformers, so it is asked rather than derived.
    """
    ids = tokenizer("a . b , c ! d ? it 's", add_special_tokens=False)["input_ids"]
    untouched = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    cleans_up = tokenizer.decode(ids, skip_special_tokens=True) != untouched
    return TokenizerSpec(
        pad_token_id=int(tokenizer.pad_token_id or 0),
        max_length=int(min(max_length, tokenizer.model_max_length)),
        clean_up_tokenization_spaces=cleans_up,
    )


def _context_encoder(source: str | None) -> EncoderCheckpoint | None:
    if source is None:
        return None
    model = load_model(_supported(source, dpr=DPRContextEncoder, bert=BertModel), source)
    return _encoder(source, model, _tokenizer(source))


def _encoder(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> EncoderCheckpoint:
    """Sizes and weights of a DPR or BERT encoder, by the names of :mod:`ragengine_export.graphs.bert`."""
    inner = getattr(model, "question_encoder", None) or getattr(model, "ctx_encoder", model)
    bert = getattr(inner, "bert_model", inner)
    config = bert.config
    if not isinstance(bert, torch.nn.Module) or config.model_type not in ("dpr", "bert"):
        raise ExportError(
            f"The encoder of {name} is a {config.model_type} model; supported are dpr and bert."
        )
    kind = getattr(config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise ExportError(
            f"The encoder of {name} has {kind} position embeddings; only absolute ones are supported."
        )
    _check_activation(name, config.hidden_act)
    projection = getattr(inner, "encode_proj", None)
    state = _state(bert)
    head = "cls"
    if projection is not None:
        head, state = "projection", state | {f"encode_proj.{k}": v for k, v in _state(projection).items()}
    elif getattr(bert, "pooler", None) is not None:
        head = "pooler"
    shape = BertShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        head=head,  # type: ignore[arg-type]  # one of the three, see above
        dimension=projection.out_features if projection is not None else config.hidden_size,
    )
    return EncoderCheckpoint(name, model, shape, state, tokenizer)


def _generator(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GeneratorCheckpoint:
    """Sizes and weights of a generator, by the names of its graphs."""
    state = _state(model)
    shape = generator_shape(name, model.config, state)
    graphs = generator_type(name, model.config.model_type).graphs
    return GeneratorCheckpoint(name, model, shape, graphs, state, tokenizer)


def _supported(source: str, **classes: Any) -> Any:
    """The class that loads ``source``, by its model type."""
    kind = load_config(source).model_type
    if kind not in classes:
        raise ExportError(f"{source} is a {kind} model; supported here: {' and '.join(classes)}.")
    return classes[kind]


def _check_activation(name: str, activation: Any) -> None:
    if activation not in ACTIVATIONS:
        raise ExportError(
            f"{name} uses the activation {activation!r}; supported are {', '.join(ACTIVATIONS)}."
        )


def _state(module: torch.nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    return {
        name: t.detach().float().numpy() for name, t in module.state_dict().items() if t.is_floating_point()
    }


def load_config(source: str) -> Any:
    """Read the config of a checkpoint, which has been checked (:mod:`ragengine_export.untrusted`)."""
    content, _ = loaded(source, PretrainedConfig.get_config_dict)
    check_config(source, content)
    return loaded(source, lambda name: AutoConfig.from_pretrained(name, trust_remote_code=False))


def load_model(cls: Any, source: str) -> Any:
    """Load weights in float32 and refuse a checkpoint that lacks some: transformers would invent them.

    TensorFlow's and Flax's weights are converted first (:mod:`ragengine_export.conversion`).
    """
    content, _ = loaded(source, PretrainedConfig.get_config_dict)
    check_config(source, content)
    config = loaded(source, cls.config_class.from_pretrained)
    check_weights(source, config)
    pooler = "pooler." if cls is BertModel else None  # which a BERT may have been saved without
    state = converted_state(source, cls, config, optional=pooler)

    def load(name: str) -> Any:
        for part in ("question_encoder", "generator"):  # a RAG model makes its parts in what they name
            if hasattr(config, part):
                getattr(config, part).dtype = torch.float32
        # weights_only: a .bin file is a pickle, and a pickle is a program
        return cls.from_pretrained(
            name if state is None else None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            weights_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )

    model, info = loaded(source, load)
    if state is not None and model.can_generate():
        model.generation_config = loaded(source, _generation_config)
    computed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    missing = sorted(set(info["missing_keys"]) - computed)  # sinusoids, which older releases did not save
    if pooler and missing and all(key.startswith(pooler) for key in missing):
        model.pooler, missing = None, []  # a BERT saved without its pooler: the first token's state
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ExportError(
            f"{source} has no weights for {shown}; it is not a whole {cls.__name__} checkpoint."
        )
    return model.eval()


def _generation_config(source: str) -> GenerationConfig:
    """The generation defaults of a folder, as ``from_pretrained`` finds them beside weights that it reads."""
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return GenerationConfig.from_pretrained(
            source, config_file_name="config.json", _from_model_config=True
        )


def load_tokenizer(source: str, subfolder: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, of any class; without a longest input, transformers says it is 1e30."""

    def load(name: str) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(name, subfolder=subfolder, trust_remote_code=False)

    tokenizer = loaded(source, load)
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ExportError(
            f"The tokenizer of {source} has the model_max_length {short_repr(longest)}; it must be a number "
            "of tokens, 1 or more."
        )
    return tokenizer


def _tokenizer(source: str, subfolder: str = "") -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(source, subfolder)
    if not tokenizer.is_fast:
        raise ExportError(f"The tokenizer of {source} has no tokenizer.json; save it with a fast tokenizer.")
    return tokenizer


def loaded(source: str, load: Any) -> Any:
    """Call a transformers loader; its exceptions become one sentence.

    There is no list of them: safetensors, tokenizers and huggingface_hub have types of their own, and some
    are a bare ``Exception``.
    """
    try:
        return load(source)
    except Exception as reason:
        place = "folder" if os.path.exists(source) else "folder or hub name"  # noqa: PTH110  # Path.exists raises for some
        first_line = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
        raise ExportError(f"{source} is not a {place} transformers can load: {first_line}") from reason
