"""Biases by relative position, which MPNet and T5's encoder add to the scores of self-attention."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ragengine_export.graphs.values import Op


def relative_bias(
    op: Op, input_ids: ir.Value, buckets: Sequence[int], table: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """The bias of each head by the position of key less that of query: [1, H, S, S].

    ``buckets`` has the row of the table for each relative position -m, ..., m; farther ones are as these.
    ``table`` gives the rows [S, S] of the table: [S, S, H].
    """
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    length = op.Squeeze(op.Shape(input_ids, start=1, end=2), zero)
    places = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
    farthest = len(buckets) // 2
    relative = op.Sub(op.Unsqueeze(places, zero), op.Unsqueeze(places, one))  # [S, S]
    near = op.Clip(relative, op.Constant(value_int=-farthest), op.Constant(value_int=farthest))
    numbers = op.Constant(value=ir.tensor(np.array(buckets, np.int32)))
    rows = op.Gather(numbers, op.Add(near, op.Constant(value_int=farthest)))
    return op.Unsqueeze(op.Transpose(table(rows), perm=[2, 0, 1]), zero)
