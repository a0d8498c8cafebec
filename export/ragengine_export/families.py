"""The registry of generators: a row for each model type of transformers, naming its graphs and its sizes.

A family is a file of graphs (:mod:`ragengine_export.graphs.bart`, :mod:`ragengine_export.graphs.t5`); a
model type is a variant of one.  Sizes are read by the names of optimum's ``NormalizedConfigManager``, and
where that has none (a decoder that differs from its encoder, feed-forward widths) from the config itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import transformers
from onnxscript import nn
from optimum.utils import NormalizedConfigManager
from transformers import (
    BartForConditionalGeneration,
    BlenderbotSmallForConditionalGeneration,
    MarianMTModel,
    MBartForConditionalGeneration,
    MT5ForConditionalGeneration,
    PegasusForConditionalGeneration,
    PLBartForConditionalGeneration,
    PreTrainedModel,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

from ragengine.errors import ExportError
from ragengine_export.graphs.bart import BartShape, bart_cross, bart_decoder, bart_encoder
from ragengine_export.graphs.generator import CrossProjections, GeneratorDecoder, GeneratorShape
from ragengine_export.graphs.layers import ACTIVATIONS
from ragengine_export.graphs.t5 import T5Shape, t5_cross, t5_decoder, t5_encoder
from ragengine_export.weights import State


@dataclass(frozen=True)
class Graphs:
    """What makes the graphs of a family from a shape; ``name`` is the manifest's ``family``."""

    name: Literal["bart", "t5"]
    encoder: Callable[[Any], nn.Module]
    cross: Callable[[Any], CrossProjections]
    decoder: Callable[[Any], GeneratorDecoder]


@dataclass(frozen=True)
class ModelType:
    """A row of the registry: the class that loads a checkpoint, its graphs, and its sizes.

    ``shape`` takes the config by optimum's names, the config, and the weights by name.
    """

    model: type[PreTrainedModel]
    graphs: Graphs
    shape: Callable[[Any, Any, State], GeneratorShape]
    normalized: str = ""
    """The model type whose names optimum's registry has for this one; "" where it has its own."""


def _bart_shape(sizes: Any, config: Any, state: State, **variant: Any) -> BartShape:
    bias = state.get("final_logits_bias")
    return BartShape(
        vocab_size=sizes.vocab_size,
        d_model=sizes.hidden_size,
        encoder_layers=sizes.num_layers,
        decoder_layers=config.decoder_layers,
        encoder_heads=sizes.num_attention_heads,
        decoder_heads=config.decoder_attention_heads,
        head_size=sizes.hidden_size // config.decoder_attention_heads,
        encoder_ffn_dim=config.encoder_ffn_dim,
        decoder_ffn_dim=config.decoder_ffn_dim,
        activation=config.activation_function,
        max_positions=config.max_position_embeddings,
        has_logits_bias=bias is not None and bool(bias.any()),
        scale_embedding=bool(config.scale_embedding),
        **variant,
    )


def _marian_shape(sizes: Any, config: Any, state: State) -> BartShape:
    shape = _bart_shape(sizes, config, state, embedding_norm="none")
    written = config.vocab_size if config.decoder_vocab_size is None else config.decoder_vocab_size
    if not config.share_encoder_decoder_embeddings and written != shape.vocab_size:
        raise ExportError(
            f"The Marian generator reads {shape.vocab_size} tokens and writes {written} others; RAG reads "
            "and writes one vocabulary. Take a model whose vocabularies are the same."
        )
    return shape


def _t5_shape(sizes: Any, config: Any, state: State) -> T5Shape:
    return T5Shape(
        vocab_size=sizes.vocab_size,
        d_model=sizes.hidden_size,
        encoder_layers=sizes.num_layers,
        decoder_layers=config.num_decoder_layers,
        encoder_heads=sizes.num_attention_heads,
        decoder_heads=sizes.num_attention_heads,
        head_size=config.d_kv,
        encoder_ffn_dim=config.d_ff,
        decoder_ffn_dim=config.d_ff,
        activation=config.dense_act_fn,
        max_positions=None,
        epsilon=config.layer_norm_epsilon,
        gated=bool(config.is_gated_act),
        scaled_head=_scales_head(config),
        buckets=config.relative_attention_num_buckets,
        encoder_buckets=_buckets(config, bidirectional=True),
        decoder_buckets=_buckets(config, bidirectional=False),
    )


def _scales_head(config: Any) -> bool:
    """Whether the class multiplies its states with d_model ** -0.5.

    transformers 4: where the embeddings are tied; 5: T5 where its config says so, mT5 never.
    """
    if int(transformers.__version__.split(".")[0]) < 5:
        return bool(config.tie_word_embeddings)
    return bool(getattr(config, "scale_decoder_outputs", False))


def _buckets(config: Any, *, bidirectional: bool) -> tuple[int, ...]:
    """The row of the table for every relative position that has its own: transformers computes it."""
    farthest = config.relative_attention_max_distance
    relative = torch.arange(-farthest, farthest + 1) if bidirectional else -torch.arange(farthest + 1)
    rows = T5Attention._relative_position_bucket(
        relative, bidirectional, config.relative_attention_num_buckets, farthest
    )
    return tuple(rows.tolist())


_BART = Graphs("bart", bart_encoder, bart_cross, bart_decoder)
_T5 = Graphs("t5", t5_encoder, t5_cross, t5_decoder)

GENERATORS: dict[str, ModelType] = {
    "bart": ModelType(BartForConditionalGeneration, _BART, partial(_bart_shape, position_offset=2)),
    "t5": ModelType(T5ForConditionalGeneration, _T5, _t5_shape),
    "mt5": ModelType(MT5ForConditionalGeneration, _T5, _t5_shape),
    "mbart": ModelType(
        MBartForConditionalGeneration, _BART, partial(_bart_shape, position_offset=2, pre_norm=True)
    ),
    "pegasus": ModelType(
        PegasusForConditionalGeneration,
        _BART,
        partial(_bart_shape, pre_norm=True, embedding_norm="none"),
    ),
    "plbart": ModelType(
        PLBartForConditionalGeneration, _BART, partial(_bart_shape, position_offset=2), normalized="bart"
    ),
    "blenderbot-small": ModelType(
        BlenderbotSmallForConditionalGeneration, _BART, partial(_bart_shape, embedding_norm="token")
    ),
    "marian": ModelType(MarianMTModel, _BART, _marian_shape),
}
"""Every generator that can be exported, by transformers' `model_type`."""


def generator_type(name: str, model_type: str) -> ModelType:
    """The row of ``model_type``; ``name`` is whose it is.

    Raises:
        ExportError: there is none; the message lists those that there are.
    """
    if model_type not in GENERATORS:
        raise ExportError(
            f"The generator of {name} is a {model_type} model; supported are {', '.join(GENERATORS)}."
        )
    return GENERATORS[model_type]


def generator_shape(name: str, config: Any, state: State) -> GeneratorShape:
    """The sizes of a generator.

    Args:
        name: whose it is, for messages.
        config: its config, of a supported model type.
        state: its weights by name.

    Raises:
        ExportError: a variant that its graphs do not have.
    """
    row = generator_type(name, config.model_type)
    sizes = NormalizedConfigManager.get_normalized_config_class(row.normalized or config.model_type)(config)
    shape = row.shape(sizes, config, state)
    if shape.activation not in ACTIVATIONS:
        raise ExportError(
            f"{name} uses the activation {shape.activation!r}; supported are {', '.join(ACTIVATIONS)}."
        )
    return shape
