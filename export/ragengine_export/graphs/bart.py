"""BART and its kin: mBART, Pegasus, PLBart, Blenderbot-small, Marian.

They differ in where layer norms stand and in the positions (:class:`BartShape`).  Parameters are named as in
`BartForConditionalGeneration`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.decoder_step import DecoderInputs
from ragengine_export.graphs.generator import CrossProjections, GeneratorDecoder, GeneratorShape
from ragengine_export.graphs.layers import (
    Embedding,
    LayerNorm,
    Linear,
    activate,
    attention,
    projected_together,
    saturated,
)
from ragengine_export.graphs.naming import Named
from ragengine_export.graphs.token_tree import Cross, Pair, TreeStep
from ragengine_export.graphs.values import FLOAT, Op, cast, number

EPSILON = 1e-5  # torch.nn.LayerNorm's default, which all of them use


@dataclass(frozen=True, kw_only=True)
class BartShape(GeneratorShape):
    """Sizes and variants, as in `BartConfig`.

    pre_norm        layer norms read what enters attention and feed-forward, and a last one the whole stack;
                    otherwise they read the sum of what enters and what leaves.  The residual stream of
                    pre_norm grows from layer to layer: it stays in float32 in fp16 too
    embedding_norm  a layer norm of token and position together; of the decoder's tokens alone, which are not
                    scaled either, before the position is added (the encoder's are as "sum"); or none
    """

    scale_embedding: bool
    pre_norm: bool = False
    embedding_norm: Literal["sum", "token", "none"] = "sum"

    @property
    def embed_scale(self) -> float:
        """What embeddings are multiplied with before positions are added."""
        return sqrt(self.d_model) if self.scale_embedding else 1.0

    @property
    def residual(self) -> ir.DataType:
        """What the residual stream is added in."""
        return FLOAT if self.pre_norm else self.dtype


def bart_encoder(shape: BartShape) -> nn.Module:
    """input_ids, attention_mask int64 [N, S] -> states [N, S, d_model]."""
    return Named("model.encoder", _Encoder(shape))


def bart_cross(shape: BartShape) -> CrossProjections:
    """The decoder's keys and values of documents."""
    layers = (f"model.decoder.layers.{layer}.encoder_attn" for layer in range(shape.decoder_layers))
    return CrossProjections(shape, [f"{layer}.{p}_proj" for layer in layers for p in "kv"], bias=True)


def bart_decoder(shape: BartShape) -> GeneratorDecoder:
    """A decoding step."""
    return GeneratorDecoder(shape, "model.decoder", _Decoder(shape))


class _Stack(nn.Module):
    """Embeddings and layers, of encoder and decoder."""

    def __init__(self, shape: BartShape, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        assert shape.max_positions is not None  # of every model of this file
        rows = shape.max_positions + shape.position_offset
        self.embed_positions = Embedding(rows, shape.d_model, quantised=False)
        self.layernorm_embedding = (
            None if shape.embedding_norm == "none" else LayerNorm(shape.d_model, EPSILON)
        )
        self.layers = nn.ModuleList(layers)
        self.layer_norm = LayerNorm(shape.d_model, EPSILON, half=False) if shape.pre_norm else None
        self._shape = shape

    def embed(self, op: Op, ids: ir.Value, positions: ir.Value, *, token_norm: bool) -> ir.Value:
        """What enters the first layer, in the numbers of the residual stream."""
        shape, norm = self._shape, self.layernorm_embedding
        words = self.embed_tokens(op, ids)
        if norm is not None and token_norm:
            return cast(op, op.Add(norm(op, words), positions), shape.residual)
        if shape.embed_scale != 1.0:
            words = op.Mul(words, number(op, shape.embed_scale, shape.dtype))
        x = op.Add(words, positions) if norm is None else norm(op, words, positions)
        return cast(op, x, shape.residual)

    def leave(self, op: Op, x: ir.Value) -> ir.Value:
        """The states of a whole stack, from what left its last layer."""
        return x if self.layer_norm is None else cast(op, self.layer_norm(op, x), self._shape.dtype)


class _Encoder(_Stack):
    def __init__(self, shape: BartShape) -> None:
        super().__init__(shape, [_EncoderLayer(shape) for _ in range(shape.encoder_layers)])

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        mask = op.Cast(attention_mask, to=ir.DataType.INT32)
        zero = op.Constant(value_ints=[0])
        length = op.Squeeze(op.Shape(input_ids, start=1, end=2), zero)
        first = op.Constant(value_int=self._shape.position_offset)
        places = op.Range(first, op.Add(length, first), op.Constant(value_int=1))
        # onnxruntime's fused operators take no residual of another shape
        sizes = op.Concat(op.Shape(input_ids), op.Constant(value_ints=[self._shape.d_model]), axis=0)
        positions = op.Expand(op.Unsqueeze(self.embed_positions(op, places), zero), sizes)
        x = self.embed(op, input_ids, positions, token_norm=False)
        for layer in self.layers:
            x = layer(op, x, mask)
        return self.leave(op, x)


class _Decoder(_Stack):
    def __init__(self, shape: BartShape) -> None:
        super().__init__(shape, [_DecoderLayer(shape) for _ in range(shape.decoder_layers)])

    def forward(self, op: Op, step: DecoderInputs) -> tuple[ir.Value, list[ir.Value]]:
        shape = self._shape
        tree = TreeStep(op, step, num_heads=shape.decoder_heads, head_size=shape.head_size, dtype=shape.dtype)
        place = op.Add(step.position, op.Constant(value_ints=[shape.position_offset]))
        positions = self.embed_positions(op, place)  # [1, d_model], the same for all beams
        before = shape.embedding_norm == "token"
        x = tree.over_documents(op, self.embed(op, step.token_ids, positions, token_norm=before))
        presents = []
        for layer, cross, past in zip(self.layers, step.cross, step.past, strict=True):
            x, *present = layer(op, x, tree, cross, past)
            presents += present
        return tree.by_question(op, self.leave(op, x)), presents


class _Layer(nn.Module):
    """Self-attention and feed-forward, each with a layer norm before or after."""

    def __init__(self, shape: BartShape, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = _norm(shape)
        self.fc1 = Linear(shape.d_model, ffn_dim)
        self.fc2 = Linear(ffn_dim, shape.d_model)
        self.final_layer_norm = _norm(shape)
        self._shape, self._apart = shape, _fused_norm(shape)

    def enter(self, op: Op, norm: LayerNorm, x: ir.Value) -> ir.Value:
        """What a sublayer reads of the residual stream ``x``."""
        return cast(op, norm(op, x), self._shape.dtype) if self._shape.pre_norm else x

    def leave(self, op: Op, norm: LayerNorm, x: ir.Value, y: ir.Value | Pair) -> ir.Value:
        """The residual stream after a sublayer whose output is ``y``, or a product and its bias."""
        if isinstance(y, tuple):
            return norm(op, y[0], x, y[1])
        return op.Add(x, cast(op, y, FLOAT)) if self._shape.pre_norm else norm(op, y, x)

    def feed_forward(self, op: Op, x: ir.Value) -> ir.Value:
        dtype, norm = self._shape.dtype, self.final_layer_norm
        inner = activate(op, self._shape.activation, self.fc1(op, self.enter(op, norm, x)))
        y = self.fc2(op, saturated(op, inner, dtype), apart=self._apart)
        if isinstance(y, tuple):
            return self.leave(op, norm, x, (saturated(op, y[0], dtype), y[1]))
        return self.leave(op, norm, x, saturated(op, y, dtype))


class _EncoderLayer(_Layer):
    def __init__(self, shape: BartShape) -> None:
        super().__init__(shape, shape.encoder_ffn_dim)
        self.self_attn = _EncoderSelfAttention(shape)

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        norm = self.self_attn_layer_norm
        x = self.leave(op, norm, x, self.self_attn(op, self.enter(op, norm, x), mask))
        return self.feed_forward(op, x)


class _DecoderLayer(_Layer):
    def __init__(self, shape: BartShape) -> None:
        super().__init__(shape, shape.decoder_ffn_dim)
        self.self_attn = _DecoderSelfAttention(shape)
        self.encoder_attn = _CrossAttention(shape)
        self.encoder_attn_layer_norm = _norm(shape)

    def forward(
        self, op: Op, x: ir.Value, tree: TreeStep, cross: Cross, past: Pair
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        norm, cross_norm = self.self_attn_layer_norm, self.encoder_attn_layer_norm
        y, *present = self.self_attn(op, self.enter(op, norm, x), tree, past)
        x = self.leave(op, norm, x, y)
        y = self.encoder_attn(op, self.enter(op, cross_norm, x), tree, cross)
        x = self.leave(op, cross_norm, x, y)
        return self.feed_forward(op, x), *present


class _EncoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (_square(shape) for _ in range(4))
        self._shape = shape

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value | Pair:
        q, k, v = _projected(op, self._shape, x, (self.q_proj, self.k_proj, self.v_proj))
        y = attention(op, q, k, v, num_heads=self._shape.encoder_heads, mask=mask)
        return self.out_proj(op, y, apart=_fused_norm(self._shape))


class _DecoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (_square(shape) for _ in range(4))
        self._shape = shape

    def forward(
        self, op: Op, x: ir.Value, tree: TreeStep, past: Pair
    ) -> tuple[ir.Value | Pair, ir.Value, ir.Value]:
        q, k, v = _projected(op, self._shape, x, (self.q_proj, self.k_proj, self.v_proj))
        y, *present = tree.self_attention(op, q, k, v, past)
        return self.out_proj(op, y, apart=_fused_norm(self._shape)), *present


class _CrossAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj, self.out_proj = _square(shape), _square(shape)
        self._apart = _fused_norm(shape)

    def forward(self, op: Op, x: ir.Value, tree: TreeStep, cross: Cross) -> ir.Value | Pair:
        return self.out_proj(op, tree.cross_attention(op, self.q_proj(op, x), cross), apart=self._apart)


def _projected(op: Op, shape: BartShape, x: ir.Value, layers: Sequence[Linear]) -> Iterable[ir.Value]:
    """Queries, keys and values of ``x``."""
    return projected_together(op, x, layers) if shape.fused else (layer(op, x) for layer in layers)


def _norm(shape: BartShape) -> LayerNorm:
    return LayerNorm(shape.d_model, EPSILON, half=not shape.pre_norm, fused=_fused_norm(shape))


def _fused_norm(shape: BartShape) -> bool:
    """Whether a norm adds the residual, and the bias of the product before it, itself."""
    return shape.fused and not shape.pre_norm


def _square(shape: BartShape) -> Linear:
    return Linear(shape.d_model, shape.d_model)
