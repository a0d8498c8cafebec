"""Layers that BERT and BART share, on onnxruntime's fused operators.

Every layer that multiplies by a weight goes through :class:`Linear` and every lookup through
:class:`Embedding`: another precision replaces these two.
"""

from typing import Any, TypeAlias

import onnx_ir as ir
from onnxscript import nn

from ragengine.errors import ExportError

Op: TypeAlias = Any  # onnxscript's OpBuilder: operators are attributes made on demand

CONTRIB = "com.microsoft"

# transformers' names of the activations that onnxruntime fuses with the bias before them.
_BIASED_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_fast": "FastGelu"}
_BIASED_ACTIVATIONS["gelu_pytorch_tanh"] = "FastGelu"
ACTIVATIONS = (*_BIASED_ACTIVATIONS, "relu", "silu", "swish")


def float32(op: Op, value: ir.Value) -> ir.Value:
    """A weight as float32; onnxruntime folds the cast of a weight stored as float16 when it loads."""
    return value if value.dtype == ir.DataType.FLOAT else op.Cast(value, to=ir.DataType.FLOAT)


class Linear(nn.Module):
    """``y = x Wᵀ (+ b)`` for x [..., in], with the weight as the checkpoint stores it, [out, in].

    ``FusedMatMul`` reads it transposed, so a head tied to an embedding is the same tensor in the file.
    ``bias="deferred"`` registers the bias for a fused operator that follows and does not add it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool | str = True) -> None:
        super().__init__()
        self.weight = nn.Parameter([out_features, in_features])
        self.bias: Any = nn.Parameter([out_features]) if bias else None
        self._add_bias = bias is True

    def forward(self, op: Op, x: ir.Value) -> ir.Value:
        y = op.FusedMatMul(x, float32(op, self.weight), transB=1, _domain=CONTRIB)
        return op.Add(y, float32(op, self.bias)) if self._add_bias else y


class Embedding(nn.Module):
    """Rows of a table: ids [...] -> [..., E]."""

    def __init__(self, count: int, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter([count, dimension])

    def forward(self, op: Op, ids: ir.Value) -> ir.Value:
        # Gather first: the table stays in the file's precision and is never copied whole.
        return float32(op, _typed(op.Gather(self.weight, ids), self.weight.dtype))


class ResidualNorm(nn.Module):
    """``LayerNorm(x + residual + b)``, where b is the deferred bias of the layer that made x."""

    def __init__(self, dimension: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter([dimension])
        self.bias = nn.Parameter([dimension])
        self._epsilon = epsilon

    def forward(self, op: Op, x: ir.Value, residual: ir.Value, bias: ir.Value | None = None) -> ir.Value:
        weights = [float32(op, self.weight), float32(op, self.bias)]
        weights += [] if bias is None else [float32(op, bias)]
        return op.SkipLayerNormalization(x, residual, *weights, epsilon=self._epsilon, _domain=CONTRIB)


def activate(op: Op, name: str, x: ir.Value, bias: ir.Value) -> ir.Value:
    """``activation(x + bias)`` for transformers' activation ``name``."""
    bias = float32(op, bias)
    if name in _BIASED_ACTIVATIONS:
        return getattr(op, _BIASED_ACTIVATIONS[name])(x, bias, _domain=CONTRIB)
    x = op.Add(x, bias)
    if name == "relu":
        return op.Relu(x)
    if name in ("silu", "swish"):
        return op.Mul(x, op.Sigmoid(x))
    raise ExportError(f"The activation {name!r} is not supported; supported are {', '.join(ACTIVATIONS)}.")


def attention(
    op: Op, query: ir.Value, key: ir.Value, value: ir.Value, *, num_heads: int, mask: ir.Value | None = None
) -> ir.Value:
    """Attention of ``query`` [N, T, H·K] over ``key`` and ``value`` ([N, S, H·K] or [N, H, S, K]).

    ``mask`` is int32 [N, S], zero where a position is padding.
    """
    return op.MultiHeadAttention(
        query, key, value, None, mask, num_heads=num_heads, mask_filter_value=MASKED, _domain=CONTRIB
    )


MASKED = -3.4028234663852886e38  # the smallest float32, as transformers masks


def attention_with_past(
    op: Op,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    past: tuple[ir.Value, ir.Value],
    *,
    num_heads: int,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """One step of causal self-attention: query, key, value [N, 1, H·K], past [N, H, T, K] each.

    Returns the attended values [N, 1, H·K] and the present key and value [N, H, T+1, K].
    """
    y, present_key, present_value = op.MultiHeadAttention(
        query, key, value, None, None, None, *past, num_heads=num_heads, _domain=CONTRIB, _outputs=3
    )
    return y, present_key, present_value


def _typed(value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    """Contrib operators and gathers come without type inference; say what is known."""
    if value.dtype is None and dtype is not None:
        value.dtype = dtype
    return value
