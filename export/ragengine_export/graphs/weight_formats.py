"""How a weight matrix is stored and multiplied, by precision (docs/notes/operators.md has the measurements).

FloatWeight   float32 or float16        FusedMatMul, in float32, or in float16 (fp16)
Int8Weight    int8, a scale a row       DynamicQuantizeMatMul: activations become uint8 on the way, with one
                                        scale; or MatMulIntegerToFloat with a scale a row (.int8_rows)
Int4Weight    4 bits, a scale a block   MatMulNBits
"""

from typing import Protocol

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs import int8_rows
from ragengine_export.graphs.values import CONTRIB, Op, cast


class StoredWeight(Protocol):
    """W [out, in] as bytes in the bundle."""

    def matmul(self, op: Op, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        """``x Wᵀ (+ b)`` for x [..., in] of the numbers that the graph computes in."""

    def rows(self, op: Op, ids: ir.Value) -> ir.Value:
        """Rows of W in those numbers, for ids int64 [...]."""


class FloatWeight:
    """W in torch's own layout: a head tied to an embedding is the same tensor in the file.

    ``dtype`` is what it is multiplied in, whatever the file holds.
    """

    def __init__(self, weight: nn.Parameter, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self._weight = weight
        self._dtype = dtype

    def matmul(self, op: Op, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        y = op.FusedMatMul(x, self.typed(op), transB=1, _domain=CONTRIB)
        return y if bias is None else op.Add(y, bias)

    def typed(self, op: Op) -> ir.Value:
        """W in the numbers that it is multiplied in."""
        return cast(op, self._weight, self._dtype)

    def rows(self, op: Op, ids: ir.Value) -> ir.Value:
        # Gather first: the table stays in the file's precision and is never copied whole.
        return cast(op, _typed(op.Gather(self._weight, ids), self._weight.dtype), self._dtype)


class Int8Weight:
    """W as int8 with a scale a row.  ``transposed`` says that ``values`` is Wᵀ, as the operator reads it.

    A table that is looked up too stays [out, in], so that a tied head is the same tensor in the file;
    onnxruntime transposes it once when it loads.  ``by_row`` says that activations have a scale a row,
    instead of one for all that are multiplied together.
    """

    def __init__(
        self, values: nn.Parameter, scales: nn.Parameter, *, transposed: bool, by_row: bool = False
    ) -> None:
        self._values = values
        self._scales = scales
        self._transposed = transposed
        self._by_row = by_row

    def matmul(self, op: Op, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        values = self._values if self._transposed else op.Transpose(self._values, perm=[1, 0])
        if not self._by_row:
            return op.DynamicQuantizeMatMul(x, values, self._scales, None, bias, _domain=CONTRIB)
        # onnxruntime joins the quantisations of one x that several matrices are multiplied with
        rows, size = int8_rows.signed_rows(op, x)
        scale, zero = 1 / int8_rows.LEVELS, int8_rows.MIDDLE
        y = op.Mul(int8_rows.product(op, rows, values, scale, zero, matrix_scale=self._scales), size)
        return y if bias is None else op.Add(y, bias)

    def rows(self, op: Op, ids: ir.Value) -> ir.Value:
        if self._transposed:
            raise ValueError("Only a table stored [out, in] has rows to look up.")
        scales = op.Unsqueeze(op.Gather(self._scales, ids), op.Constant(value_ints=[-1]))
        return op.Mul(op.Cast(op.Gather(self._values, ids), to=ir.DataType.FLOAT), scales)


class Int4Weight:
    """W as 4-bit numbers with a scale and a zero point a block of ``block_size`` along a row."""

    def __init__(
        self,
        values: nn.Parameter,
        scales: nn.Parameter,
        zeros: nn.Parameter,
        shape: tuple[int, int],
        block_size: int,
    ) -> None:
        self._parameters = values, scales, zeros
        self._shape = shape
        self._block_size = block_size

    def matmul(self, op: Op, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        n, k = self._shape
        # accuracy_level 4: activations are quantised to int8 by block, the fastest on a CPU
        return op.MatMulNBits(
            x, *self._parameters, None, bias, K=k, N=n, bits=4, block_size=self._block_size, accuracy_level=4,
            _domain=CONTRIB,
        )  # fmt: skip

    def rows(self, op: Op, ids: ir.Value) -> ir.Value:
        raise ValueError("A 4-bit matrix has no rows to look up; tables are stored as int8.")


def _typed(value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    """Gathers come without type inference; say what is known."""
    if value.dtype is None and dtype is not None:
        value.dtype = dtype
    return value
