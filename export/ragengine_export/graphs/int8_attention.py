"""Cross-attention over keys and values in int8, which a step reads in a quarter of the bytes.

A key or value k of one token and head is stored as ``round(k / s) + 128`` with ``s = max |k| / 127``.
Queries and weighted probabilities become uint8 a row at a time, each row by its own largest number, so a
product depends on nothing but its own row: not on the padding, nor on the other questions of a batch.

Both factors are unsigned: of a signed one x86 processors without VNNI add pairs in 16 bits, which saturate
(docs/notes/operators.md).
"""

from typing import NamedTuple

import onnx_ir as ir

from ragengine_export.graphs.int8_rows import LEVELS, MIDDLE, largest, product, signed_rows, uint8
from ragengine_export.graphs.layers import MASKED
from ragengine_export.graphs.values import FLOAT, Op, number


class Int8Memory(NamedTuple):
    """A layer's keys and values of the documents.

    key, value              uint8 [Q·D, H, K, S] and [Q·D, H, S, K]
    key_scale, value_scale  float32 [Q·D, H, 1, S]
    """

    key: ir.Value
    key_scale: ir.Value
    value: ir.Value
    value_scale: ir.Value


def int8_memory(op: Op, key: ir.Value, value: ir.Value) -> Int8Memory:
    """``key`` and ``value`` [Q·D, S, H, K] in int8."""
    keys, key_scale = _tokens(op, key)
    values, value_scale = _tokens(op, value)
    return Int8Memory(
        op.Transpose(keys, perm=[0, 2, 3, 1]),
        op.Transpose(key_scale, perm=[0, 2, 3, 1]),
        op.Transpose(values, perm=[0, 2, 1, 3]),
        op.Transpose(value_scale, perm=[0, 2, 3, 1]),
    )


def hidden_bias(op: Op, mask: ir.Value) -> ir.Value:
    """int32 [N, S], zero for padding -> what is added to scores, [N, 1, 1, S]."""
    seen = op.Cast(mask, to=ir.DataType.BOOL)
    bias = op.Where(seen, number(op, 0.0, FLOAT), number(op, MASKED, FLOAT))
    return op.Unsqueeze(bias, op.Constant(value_ints=[1, 2]))


def int8_attention(
    op: Op,
    query: ir.Value,
    memory: Int8Memory,
    bias: ir.Value,
    *,
    num_heads: int,
    head_size: int,
    scaled: bool,
) -> ir.Value:
    """Attention of ``query`` [N, B, H·K] over the documents, [N, B, H·K]; ``bias`` is [N, 1, 1, S].

    Scores are divided by sqrt(K) where ``scaled``.
    """
    split = op.Constant(value_ints=[0, 0, num_heads, head_size])
    by_head = op.Transpose(op.Reshape(query, split), perm=[0, 2, 1, 3])  # [N, H, B, K]
    rows, size = signed_rows(op, by_head)  # size [N, H, B, 1]
    scale = (head_size**-0.5 if scaled else 1.0) / LEVELS
    products = product(op, rows, memory.key, scale, MIDDLE, matrix_zero=MIDDLE)
    scores = op.Add(op.Mul(op.Mul(products, memory.key_scale), size), bias)
    # The scales of values are part of the weights, and a row's largest weight becomes 255.
    weights = op.Mul(op.Softmax(scores, axis=-1), memory.value_scale)
    size = largest(op, weights)
    rows = uint8(op, op.Div(weights, size), 1 / 255, 0)
    y = op.Mul(product(op, rows, memory.value, 1 / 255, 0, matrix_zero=MIDDLE), size)
    merged = op.Constant(value_ints=[0, 0, num_heads * head_size])
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), merged)


def _tokens(op: Op, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """uint8 [N, S, H, K] and the scale of each token and head, [N, S, H, 1]."""
    rows, size = signed_rows(op, x)
    return rows, op.Mul(size, number(op, 1 / LEVELS, FLOAT))
