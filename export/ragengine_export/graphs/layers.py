"""Layers that several architectures share.

Every layer that multiplies by a weight is a :class:`Linear`, every lookup an :class:`Embedding`; how their
weights are stored and multiplied is their ``stored`` (:mod:`.weight_formats`), which differs by precision.

The graph is written in plain operators where onnxruntime's fused ones are slower on a CPU: measured there,
``SkipLayerNormalization`` takes ten times as long as ``Add`` and ``LayerNormalization``
(docs/notes/operators.md).
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import nn

from ragengine.errors import ExportError
from ragengine_export.graphs.values import CONTRIB, FLOAT, FLOAT16, Op, cast, known, number
from ragengine_export.graphs.weight_formats import FloatWeight, StoredWeight

MASKED = -3.4028234663852886e38  # the smallest float32, as transformers masks
LARGEST_HALF = 65504.0  # the largest float16

# transformers' names of the activations, and the operator and attributes of each
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_fast": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
}
ACTIVATIONS = (*_ACTIVATIONS, "silu", "swish")


class Linear(nn.Module):
    """``y = x Wᵀ (+ b)`` for x [..., in], with the weight as the checkpoint names it, [out, in].

    ``is_table`` says that the weight may be tied to an :class:`Embedding` and is stored as that is;
    ``half=False`` that the product is one of float32 in fp16 too, because float16 would overflow.
    """

    quantised = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        is_table: bool = False,
        half: bool = True,
    ) -> None:
        super().__init__()
        self.is_table = is_table
        self.half = half
        self.weight = nn.Parameter([out_features, in_features])
        self.bias: Any = nn.Parameter([out_features]) if bias else None
        self.stored: StoredWeight = FloatWeight(self.weight)
        self.dtype = FLOAT

    def forward(self, op: Op, x: ir.Value | None, *, apart: bool = False) -> Any:
        """y.

        With ``apart`` what an operator needs that does more: the product and the bias; without ``x`` the
        weight, which is stored in floats, and the bias.
        """
        bias = None if self.bias is None else cast(op, self.bias, self.dtype)
        if x is None:
            assert isinstance(self.stored, FloatWeight)
            return self.stored.typed(op), bias
        y = known(self.stored.matmul(op, x, None if apart else bias), self.dtype)
        return (y, bias) if apart else y


class Embedding(nn.Module):
    """Rows of a table: ids [...] -> [..., E].  ``quantised=False`` keeps a small one in floats."""

    def __init__(self, count: int, dimension: int, *, quantised: bool = True) -> None:
        super().__init__()
        self.quantised = quantised
        self.weight = nn.Parameter([count, dimension])
        self.stored: StoredWeight = FloatWeight(self.weight)

    def forward(self, op: Op, ids: ir.Value) -> ir.Value:
        return self.stored.rows(op, ids)


class LayerNorm(nn.Module):
    """``LayerNorm(x + residual)``, with mean and variance in float32 whatever ``dtype`` is.

    ``half=False`` says that x is float32 in fp16 too; ``fused`` that one operator of onnxruntime's adds the
    residual, of the shape of x, and normalises.
    """

    def __init__(
        self, dimension: int, epsilon: float, *, half: bool = True, bias: bool = True, fused: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter([dimension])
        self.bias: Any = nn.Parameter([dimension]) if bias else None
        self.half = half
        self.fused = fused
        self.dtype = FLOAT
        self._epsilon = epsilon

    def forward(
        self, op: Op, x: ir.Value, residual: ir.Value | None = None, added: ir.Value | None = None
    ) -> ir.Value:
        """``added`` is a bias of x, for a fused norm alone."""
        weight = cast(op, self.weight, self.dtype)
        bias = () if self.bias is None else (cast(op, self.bias, self.dtype),)
        if self.fused and residual is not None:
            y = op.SkipLayerNormalization(
                x, residual, weight, *bias, added, epsilon=self._epsilon, _domain=CONTRIB
            )
            return known(y, self.dtype)
        summed = x if residual is None else op.Add(x, residual)
        return op.LayerNormalization(summed, weight, *bias, epsilon=self._epsilon)


class RmsNorm(nn.Module):
    """``x / sqrt(mean(x²) + ε) · weight``, in float32: no mean is subtracted and no bias added."""

    def __init__(self, dimension: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter([dimension])
        self._epsilon = epsilon

    def forward(self, op: Op, x: ir.Value) -> ir.Value:
        weight = cast(op, self.weight, FLOAT)
        # an operator of onnxruntime's own, which registers it among ONNX's
        return known(
            op.SimplifiedLayerNormalization(x, weight, axis=-1, epsilon=self._epsilon, stash_type=1), FLOAT
        )


def projected_together(op: Op, x: ir.Value, layers: Sequence[Linear]) -> list[ir.Value]:
    """The outputs of layers of one width, with biases, by one product.

    onnxruntime joins their weights when it loads the graph: the file has each once, by its name.
    """
    weights, biases = zip(*(layer(op, None, apart=True) for layer in layers), strict=True)
    product = op.FusedMatMul(x, op.Concat(*weights, axis=0), transB=1, _domain=CONTRIB)
    y = op.Add(product, op.Concat(*biases, axis=0))
    parts = op.Split(y, axis=-1, num_outputs=len(layers), _outputs=len(layers))
    return [known(part, layers[0].dtype) for part in parts]


def activate(op: Op, name: str, x: ir.Value) -> ir.Value:
    """transformers' activation ``name``."""
    if name in ("silu", "swish"):
        return op.Mul(x, op.Sigmoid(x))
    if name not in _ACTIVATIONS:
        raise ExportError(
            f"The activation {name!r} is not supported; supported are {', '.join(ACTIVATIONS)}."
        )
    operator, attributes = _ACTIVATIONS[name]
    if "approximate" in attributes and x.dtype == FLOAT16:
        # of an odd number of float16 onnxruntime's CUDA kernel leaves the last one as the memory was
        return cast(op, getattr(op, operator)(cast(op, x, FLOAT), **attributes), FLOAT16)
    return getattr(op, operator)(x, **attributes)


def saturated(op: Op, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    """``x``, with what overflowed float16 at its largest number; float32 as it is.

    The feed-forward layers of BART reach such numbers (transformers clamps them in half precision too), and
    the layer norm that follows needs them finite.
    """
    if dtype != FLOAT16:
        return x
    return op.Clip(x, number(op, -LARGEST_HALF, dtype), number(op, LARGEST_HALF, dtype))


def attention(
    op: Op,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    num_heads: int,
    mask: ir.Value | None = None,
    bias: ir.Value | None = None,
    scaled: bool = True,
) -> ir.Value:
    """Attention of ``query`` [N, T, H·K] over ``key`` and ``value`` ([N, S, H·K] or [N, H, S, K]).

    ``mask`` is int32 [N, S], zero where a position is padding; ``bias`` is added to the scores [N, H, T, S]
    (its first two axes may be 1), which are divided by sqrt(K) unless ``scaled`` is False.
    """
    return op.MultiHeadAttention(
        query, key, value, None, mask, bias,
        num_heads=num_heads, mask_filter_value=MASKED, _domain=CONTRIB, **_scale(scaled),
    )  # fmt: skip


def attention_with_past(
    op: Op,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    past: tuple[ir.Value, ir.Value],
    bias: ir.Value,
    *,
    num_heads: int,
    scaled: bool = True,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Attention of B queries over P past positions and their own B: query, key, value [N, B, H·K].

    past [N, H, P, K] each; ``bias`` [N, 1 or H, B, P+B] is added to the scores.  Returns the attended values
    [N, B, H·K] and the present key and value [N, H, P+B, K].
    """
    y, present_key, present_value = op.MultiHeadAttention(
        query, key, value, None, None, bias, *past,
        num_heads=num_heads, _domain=CONTRIB, _outputs=3, **_scale(scaled),
    )  # fmt: skip
    return y, present_key, present_value


def attention_in_place(
    op: Op,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    past: tuple[ir.Value, ir.Value],
    places: ir.Value,
    bias: ir.Value,
    *,
    num_heads: int,
    head_size: int,
    scaled: bool = True,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """As :func:`attention_with_past`, in a past of fixed capacity P: key and value are written into it.

    ``places`` int64 [N, H, B, K] says where along P; ``bias`` is [N, 1 or H, B, P].  Where the present is
    bound to the memory of the past nothing is copied.
    """
    split, swapped = op.Constant(value_ints=[0, 0, num_heads, head_size]), [0, 2, 1, 3]
    present = [
        op.ScatterElements(kept, places, op.Transpose(op.Reshape(new, split), perm=swapped), axis=2)
        for kept, new in zip(past, (key, value), strict=True)
    ]
    y = op.MultiHeadAttention(
        query, *present, None, None, bias, num_heads=num_heads, _domain=CONTRIB, **_scale(scaled)
    )
    return y, *present


def _scale(scaled: bool) -> dict[str, float]:
    """The attribute of MultiHeadAttention, whose default is 1 / sqrt(K)."""
    return {} if scaled else {"scale": 1.0}
