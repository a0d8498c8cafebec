"""From the states of a text's tokens to one vector, as `sentence_transformers.models.Pooling` does it."""

from typing import Final

import numpy as np
import onnx_ir as ir

from ragengine_export.choices import Pooling
from ragengine_export.graphs.values import FLOAT, Op, cast, known, number

_FEWEST = 1e-9  # what the number of tokens is at least, there
_SHORTEST = 1e-12  # what the norm is at least, in torch.nn.functional.normalize


def pooled(
    op: Op, states: ir.Value, attention_mask: ir.Value, poolings: tuple[Pooling, ...], skipped: int
) -> ir.Value:
    """The vectors of N texts, [N, E·P] for P ``poolings``, which are joined in their order.

    ``states`` [N, S, E]; ``attention_mask`` int64 [N, S], zero where a position is padding, on the right.
    The first ``skipped`` tokens do not count.  Sums are float32.
    """
    if poolings == ("cls",) and not skipped:
        return known(op.Gather(states, op.Constant(value_int=0), axis=1), states.dtype or FLOAT)
    given = cast(op, states, FLOAT)
    counted = _counted(op, attention_mask, skipped)
    parts = [_POOLS[pooling](op, given, attention_mask, counted) for pooling in poolings]
    return known(parts[0] if len(parts) == 1 else op.Concat(*parts, axis=-1), FLOAT)


def normalized(op: Op, x: ir.Value) -> ir.Value:
    """float32 ``x`` [N, E] with the Euclidean norm 1."""
    norm = op.ReduceL2(x, op.Constant(value_ints=[-1]), keepdims=1)
    return known(op.Div(x, op.Max(norm, number(op, _SHORTEST, FLOAT))), FLOAT)


def _counted(op: Op, attention_mask: ir.Value, skipped: int) -> ir.Value:
    """1 for each token that counts: float32 [N, S]."""
    counts = op.Cast(attention_mask, to=FLOAT)
    if not skipped:
        return counts
    beyond = op.GreaterOrEqual(_places(op, attention_mask), op.Constant(value_int=skipped))
    return op.Mul(counts, op.Cast(beyond, to=FLOAT))


def _places(op: Op, attention_mask: ir.Value) -> ir.Value:
    """0, ..., S-1: int64 [S]."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    length = op.Squeeze(op.Shape(attention_mask, start=1, end=2), op.Constant(value_ints=[0]))
    return op.Range(zero, length, one)


def _weighted_sum(op: Op, states: ir.Value, weights: ir.Value) -> ir.Value:
    """Σ_s weights[n, s] · states[n, s]: [N, E]."""
    one = op.Constant(value_ints=[1])
    return op.Squeeze(op.MatMul(op.Unsqueeze(weights, one), states), one)


def _total(op: Op, weights: ir.Value) -> ir.Value:
    """Σ_s weights[n, s], and at least a little: [N, 1]."""
    total = op.ReduceSum(weights, op.Constant(value_ints=[1]), keepdims=1)
    return op.Max(total, number(op, _FEWEST, FLOAT))


def _at(op: Op, states: ir.Value, places: ir.Value) -> ir.Value:
    """The state of each text at its own of ``places`` [N, 1]: [N, E]."""
    return op.GatherND(states, places, batch_dims=1)


def _cls(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    """Of the first token that counts."""
    return _at(op, states, op.ArgMax(counted, axis=1, keepdims=1))


def _last_token(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    length = op.ReduceSum(mask, op.Constant(value_ints=[1]), keepdims=1)
    return _at(op, states, op.Sub(length, op.Constant(value_int=1)))


def _mean(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    return op.Div(_weighted_sum(op, states, counted), _total(op, counted))


def _mean_sqrt_len(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    return op.Div(_weighted_sum(op, states, counted), op.Sqrt(_total(op, counted)))


def _weighted_mean(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    """The t-th token of the text weighs t, whether those before it count or not."""
    rank = op.Cast(op.Add(_places(op, mask), op.Constant(value_int=1)), to=FLOAT)
    weights = op.Mul(counted, rank)
    return op.Div(_weighted_sum(op, states, weights), _total(op, weights))


def _max(op: Op, states: ir.Value, mask: ir.Value, counted: ir.Value) -> ir.Value:
    axis = op.Constant(value_ints=[-1])
    counts = op.Cast(op.Unsqueeze(counted, axis), to=ir.DataType.BOOL)
    least = op.Constant(value=ir.tensor(np.array(-np.inf, np.float32)))
    return op.ReduceMax(op.Where(counts, states, least), op.Constant(value_ints=[1]), keepdims=0)


_POOLS: Final = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last_token": _last_token,
}
