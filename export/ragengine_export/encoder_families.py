"""The registry of encoders: a row for each model type of transformers, naming its graph and its sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    BertModel,
    DistilBertModel,
    ElectraModel,
    ModernBertModel,
    MPNetModel,
    PreTrainedModel,
    RobertaModel,
    XLMRobertaModel,
)
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from ragengine.errors import ExportError
from ragengine_export.graphs.bert import BertEncoder, BertShape
from ragengine_export.graphs.layers import ACTIVATIONS
from ragengine_export.graphs.modernbert import ModernBertEncoder, ModernBertShape
from ragengine_export.graphs.text_encoder import EncoderShape, HeadShape, TextEncoder
from ragengine_export.weights import State


@dataclass(frozen=True)
class EncoderFamily:
    """A row of the registry: the class that loads a checkpoint, its graph, and its sizes.

    ``shape`` takes the config and the head.  ``names`` turns the names of its weights into those of the
    graph: each part of a name, and what it is called there.
    """

    model: type[PreTrainedModel]
    graph: Callable[[Any], TextEncoder]
    shape: Callable[[Any, HeadShape], EncoderShape]
    names: tuple[tuple[str, str], ...] = ()

    def renamed(self, state: State) -> dict[str, Any]:
        """The weights of the model by the graph's names."""
        result = {}
        for name, values in state.items():
            for ours, theirs in self.names:
                name = name.replace(ours, theirs)
            result[name] = values
        return result


def _bert_shape(config: Any, head: HeadShape, **variant: Any) -> BertShape:
    rows = config.max_position_embeddings
    padding = variant.get("padding_id")
    offset = 0 if padding is None else padding + 1
    sizes: dict[str, Any] = {
        "intermediate_size": getattr(config, "intermediate_size", None),
        "activation": getattr(config, "hidden_act", None),
        "epsilon": getattr(config, "layer_norm_eps", None),
        "type_vocab_size": getattr(config, "type_vocab_size", 0),
    }
    return BertShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        position_rows=rows,
        max_tokens=rows - offset,
        position_offset=offset,
        head=head,
        **(sizes | variant),
    )


def _roberta_shape(config: Any, head: HeadShape) -> BertShape:
    return _bert_shape(config, head, padding_id=config.pad_token_id)


def _distilbert_shape(config: Any, head: HeadShape) -> BertShape:
    return _bert_shape(
        config,
        head,
        intermediate_size=config.hidden_dim,
        activation=config.activation,
        epsilon=1e-12,
    )


def _electra_shape(config: Any, head: HeadShape) -> BertShape:
    projected = config.embedding_size != config.hidden_size
    return _bert_shape(config, head, embedding_size=config.embedding_size if projected else None)


def _mpnet_shape(config: Any, head: HeadShape) -> BertShape:
    farthest = (
        128  # `MPNetEncoder.relative_position_bucket`'s max_distance, with 32 buckets whatever the config
    )
    buckets = MPNetEncoder.relative_position_bucket(torch.arange(-farthest, farthest + 1))
    return _bert_shape(
        config,
        head,
        padding_id=1,  # `MPNetEmbeddings.padding_idx`
        type_vocab_size=0,
        relative_rows=config.relative_attention_num_buckets,
        relative_buckets=tuple(buckets.tolist()),
    )


def _modernbert_shape(config: Any, head: HeadShape) -> ModernBertShape:
    local = _local_layers(config)
    thetas = _thetas(config)
    return ModernBertShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_tokens=config.max_position_embeddings,
        position_offset=None,
        activation=config.hidden_activation,
        epsilon=config.norm_eps,
        head=head,
        thetas=tuple(thetas[is_local] for is_local in local),
        windows=tuple(config.local_attention // 2 if is_local else None for is_local in local),
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        norm_bias=config.norm_bias,
    )


def _local_layers(config: Any) -> list[bool]:
    """Which layers attend within a window: transformers 5 lists them, 4 counts."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return [kind == "sliding_attention" for kind in kinds]
    return [layer % config.global_attn_every_n_layers != 0 for layer in range(config.num_hidden_layers)]


def _thetas(config: Any) -> dict[bool, float]:
    """The rotary base of layers with (True) and without a window."""
    rope = getattr(config, "rope_parameters", None)
    if rope is None:  # transformers 4
        whole, local = config.global_rope_theta, config.local_rope_theta
        return {False: float(whole), True: float(whole if local is None else local)}
    for parameters in rope.values():
        if parameters["rope_type"] != "default":
            raise ExportError(
                f"The encoder has rotary positions of the type {parameters['rope_type']!r}; only default "
                "ones are supported."
            )
    names = {False: "full_attention", True: "sliding_attention"}
    return {is_local: float(rope[name]["rope_theta"]) for is_local, name in names.items()}


_DISTILBERT_NAMES = (
    ("transformer.layer.", "encoder.layer."),
    *((f"attention.{ours}_lin.", f"attention.self.{theirs}.")
      for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value"))),
    ("attention.out_lin.", "attention.output.dense."),
    ("sa_layer_norm.", "attention.output.LayerNorm."),
    ("ffn.lin1.", "intermediate.dense."),
    ("ffn.lin2.", "output.dense."),
    ("output_layer_norm.", "output.LayerNorm."),
)  # fmt: skip
_MPNET_NAMES = (
    *((f"attention.attn.{ours}.", f"attention.self.{theirs}.")
      for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value"))),
    ("attention.attn.o.", "attention.output.dense."),
    ("attention.LayerNorm.", "attention.output.LayerNorm."),
)  # fmt: skip

ENCODERS: dict[str, EncoderFamily] = {
    "bert": EncoderFamily(BertModel, BertEncoder, _bert_shape),
    "roberta": EncoderFamily(RobertaModel, BertEncoder, _roberta_shape),
    "xlm-roberta": EncoderFamily(XLMRobertaModel, BertEncoder, _roberta_shape),
    "distilbert": EncoderFamily(DistilBertModel, BertEncoder, _distilbert_shape, _DISTILBERT_NAMES),
    "electra": EncoderFamily(ElectraModel, BertEncoder, _electra_shape),
    "mpnet": EncoderFamily(MPNetModel, BertEncoder, _mpnet_shape, _MPNET_NAMES),
    "modernbert": EncoderFamily(
        ModernBertModel, ModernBertEncoder, _modernbert_shape,
        names=(("embeddings.tok_embeddings.", "embeddings.word_embeddings."),),
    ),
}  # fmt: skip
"""Every encoder that can be exported, by transformers' `model_type`; DPR's are BERTs with a head."""


def encoder_family(name: str, model_type: str) -> EncoderFamily:
    """The row of ``model_type``; ``name`` is whose it is.

    Raises:
        ExportError: there is none; the message lists those that there are.
    """
    if model_type not in ENCODERS:
        raise ExportError(
            f"The encoder {name} is a {model_type} model; supported are dpr, {', '.join(ENCODERS)}."
        )
    return ENCODERS[model_type]


def encoder_shape(name: str, config: Any, head: HeadShape) -> EncoderShape:
    """The sizes of an encoder.

    Args:
        name: whose it is, for messages.
        config: its config; DPR's is a BERT's.
        head: what makes a vector of its states.

    Raises:
        ExportError: a variant that its graph does not have.
    """
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    if kind != "absolute":
        raise ExportError(
            f"The encoder of {name} has {kind} position embeddings; only absolute ones are supported."
        )
    family = "bert" if config.model_type == "dpr" else config.model_type
    shape = encoder_family(name, family).shape(config, head)
    if shape.activation not in ACTIVATIONS:
        raise ExportError(
            f"{name} uses the activation {shape.activation!r}; supported are {', '.join(ACTIVATIONS)}."
        )
    return shape
