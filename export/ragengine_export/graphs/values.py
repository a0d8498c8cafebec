"""What every graph is written with: the numbers it computes in, constants, casts."""

from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

Op: TypeAlias = Any  # onnxscript's OpBuilder: operators are attributes made on demand

CONTRIB = "com.microsoft"
FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def number(op: Op, value: float, dtype: ir.DataType) -> ir.Value:
    """A constant scalar of ``dtype``."""
    return op.Constant(value=ir.tensor(np.array(value, dtype.numpy())))


def known(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """``value`` with its type said: contrib operators come without type inference."""
    value.dtype = dtype
    return value


def cast(op: Op, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """``value`` as ``dtype``; onnxruntime folds the cast of a weight when it loads."""
    return value if value.dtype == dtype else op.Cast(value, to=dtype)
