"""ModernBERT: norms before each sublayer, rotary positions, and attention within a window in most layers.

Parameters are named as in `ModernBertModel`, but for the table of tokens, which is called as BERT's.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.layers import (
    LARGEST_HALF,
    Embedding,
    LayerNorm,
    Linear,
    activate,
    attention,
    saturated,
)
from ragengine_export.graphs.text_encoder import EncoderShape, TextEncoder
from ragengine_export.graphs.values import CONTRIB, FLOAT16, Op, cast, number

# Far below every score, and far above what masks padding: a token of padding whose window holds nothing but
# padding then has finite states.
_OUTSIDE = -1e30


@dataclass(frozen=True, kw_only=True)
class ModernBertShape(EncoderShape):
    """Sizes and variants, as in `ModernBertConfig`.

    thetas   the base of the rotary frequencies of each layer
    windows  how many tokens to each side a layer attends to; None where it attends to all
    biases   whether attention, feed-forward layers and norms have biases
    """

    thetas: tuple[float, ...]
    windows: tuple[int | None, ...]
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool


class ModernBertEncoder(TextEncoder):
    """The states of a pre-norm encoder with rotary positions."""

    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__(shape)
        self.embeddings = _Embeddings(shape)
        self.layers = nn.ModuleList([_Layer(shape, layer) for layer in range(shape.num_layers)])
        self.final_norm = _norm(shape)
        self._sizes = shape

    def states(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        shape = self._sizes
        mask = op.Cast(attention_mask, to=ir.DataType.INT32)
        x = self.embeddings(op, input_ids)
        rotations = {theta: _rotation(op, input_ids, theta, shape) for theta in sorted(set(shape.thetas))}
        near = {window: _window(op, input_ids, window, shape.dtype) for window in set(shape.windows)}
        for layer, theta, window in zip(self.layers, shape.thetas, shape.windows, strict=True):
            x = layer(op, x, mask, rotations[theta], near[window])
        return self.final_norm(op, x)


class _Embeddings(nn.Module):
    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        self.word_embeddings = Embedding(shape.vocab_size, shape.hidden_size)
        self.norm = _norm(shape)

    def forward(self, op: Op, input_ids: ir.Value) -> ir.Value:
        return self.norm(op, self.word_embeddings(op, input_ids))


class _Layer(nn.Module):
    def __init__(self, shape: ModernBertShape, layer: int) -> None:
        super().__init__()
        self.attn_norm = None if layer == 0 else _norm(shape)
        self.attn = _Attention(shape)
        self.mlp_norm = _norm(shape)
        self.mlp = _FeedForward(shape)

    def forward(
        self,
        op: Op,
        x: ir.Value,
        mask: ir.Value,
        rotation: tuple[ir.Value, ir.Value],
        bias: ir.Value | None,
    ) -> ir.Value:
        y = x if self.attn_norm is None else self.attn_norm(op, x)
        x = op.Add(x, self.attn(op, y, mask, rotation, bias))
        return op.Add(x, self.mlp(op, self.mlp_norm(op, x)))


class _Attention(nn.Module):
    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.Wqkv = Linear(width, 3 * width, bias=shape.attention_bias)
        self.Wo = Linear(width, width, bias=shape.attention_bias)
        self._num_heads = shape.num_heads

    def forward(
        self,
        op: Op,
        x: ir.Value,
        mask: ir.Value,
        rotation: tuple[ir.Value, ir.Value],
        bias: ir.Value | None,
    ) -> ir.Value:
        q, k, v = op.Split(self.Wqkv(op, x), num_outputs=3, axis=-1, _outputs=3)
        first = op.Constant(value_ints=[0])
        q, k = (
            op.RotaryEmbedding(y, first, *rotation, num_heads=self._num_heads, _domain=CONTRIB)
            for y in (q, k)
        )
        return self.Wo(op, attention(op, q, k, v, num_heads=self._num_heads, mask=mask, bias=bias))


class _FeedForward(nn.Module):
    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        self.Wi = Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=shape.mlp_bias)
        self.Wo = Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)
        self._shape = shape

    def forward(self, op: Op, x: ir.Value) -> ir.Value:
        inner, gate = op.Split(self.Wi(op, x), num_outputs=2, axis=-1, _outputs=2)
        y = op.Mul(activate(op, self._shape.activation, inner), gate)
        return saturated(op, self.Wo(op, saturated(op, y, self._shape.dtype)), self._shape.dtype)


def _norm(shape: ModernBertShape) -> LayerNorm:
    return LayerNorm(shape.hidden_size, shape.epsilon, bias=shape.norm_bias)


def _places(op: Op, input_ids: ir.Value) -> ir.Value:
    """0, ..., S-1: int64 [S]."""
    length = op.Squeeze(op.Shape(input_ids, start=1, end=2), op.Constant(value_ints=[0]))
    return op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))


def _rotation(op: Op, input_ids: ir.Value, theta: float, shape: ModernBertShape) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine of s · theta^(-2i/K) for each position s and pair i: [S, K/2] each."""
    size = shape.hidden_size // shape.num_heads
    frequencies = (1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size)).astype(np.float32)
    places = op.Cast(_places(op, input_ids), to=ir.DataType.FLOAT)
    angles = op.Mul(
        op.Unsqueeze(places, op.Constant(value_ints=[1])), op.Constant(value=ir.tensor(frequencies))
    )
    return cast(op, op.Cos(angles), shape.dtype), cast(op, op.Sin(angles), shape.dtype)


def _window(op: Op, input_ids: ir.Value, window: int | None, dtype: ir.DataType) -> ir.Value | None:
    """What is added to the scores of tokens further than ``window`` apart: [1, 1, S, S]."""
    if window is None:
        return None
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    places = _places(op, input_ids)
    apart = op.Abs(op.Sub(op.Unsqueeze(places, zero), op.Unsqueeze(places, one)))
    outside = number(op, -LARGEST_HALF if dtype == FLOAT16 else _OUTSIDE, dtype)
    bias = op.Where(op.LessOrEqual(apart, op.Constant(value_int=window)), number(op, 0, dtype), outside)
    return op.Unsqueeze(op.Unsqueeze(bias, zero), zero)
