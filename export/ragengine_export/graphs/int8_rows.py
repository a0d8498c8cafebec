"""Products in 8 bits whose left factor is quantised a row at a time, each row by its own largest number.

So a row of the product depends on nothing but its own row: not on the padding, nor on the other questions of
a batch.  Sums of integers are exact, in whatever order they are added.
"""

import numpy as np
import onnx_ir as ir

from ragengine_export.graphs.values import CONTRIB, FLOAT, Op, known, number

LEVELS = 127.0
MIDDLE = 128  # the uint8 that stands for 0
_TINY = 1e-30  # what a row of zeros is divided by


def largest(op: Op, x: ir.Value) -> ir.Value:
    """The largest number of each row [..., K], at least tiny: [..., 1]."""
    found = op.ReduceMax(x, op.Constant(value_ints=[-1]), keepdims=1)
    return op.Max(found, number(op, _TINY, FLOAT))


def signed_rows(op: Op, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x [..., K] as uint8 with 0 in the ``MIDDLE``, and the largest |x| of each row, [..., 1]."""
    size = largest(op, op.Abs(x))
    return uint8(op, op.Div(x, size), 1 / LEVELS, MIDDLE), size


def uint8(op: Op, x: ir.Value, scale: float, zero: int) -> ir.Value:
    """``round(x / scale) + zero``."""
    return op.QuantizeLinear(x, number(op, scale, FLOAT), _zero(op, zero))


def product(
    op: Op,
    rows: ir.Value,
    matrix: ir.Value,
    scale: float,
    zero: int,
    *,
    matrix_scale: ir.Value | None = None,
    matrix_zero: int | None = None,
) -> ir.Value:
    """``scale (rows - zero) (matrix - matrix_zero) matrix_scale``, in float32.

    ``matrix`` is int8 where it has no ``matrix_zero``; ``matrix_scale`` is 1, or one number a column.
    """
    y = op.MatMulIntegerToFloat(
        rows,
        matrix,
        number(op, scale, FLOAT),
        number(op, 1.0, FLOAT) if matrix_scale is None else matrix_scale,
        _zero(op, zero),
        None if matrix_zero is None else _zero(op, matrix_zero),
        _domain=CONTRIB,
    )
    return known(y, FLOAT)


def _zero(op: Op, zero: int) -> ir.Value:
    return op.Constant(value=ir.tensor(np.array(zero, np.uint8)))
