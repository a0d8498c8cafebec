"""The inputs of a decoder step as its modules take them, and where its reshapes get their shapes from.

The dynamic decoder reads shapes off its inputs.  The static one must hold no shape computation, or it cannot
be captured as a CUDA graph: there every shape is an input, made once for a bucket.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ragengine_export.graphs.int8_attention import Int8Memory
from ragengine_export.graphs.values import Op


@dataclass(frozen=True)
class StepShapes:
    """Shapes, int64 vectors, and the numbers of the documents.

    documents      int64 [D]  0, 1, ... D-1; None in a graph that is to be captured
    each_document  Q, D, 1, 1
    by_row         Q·D, B, d_model
    by_question    Q, D, B, d_model
    past_bias      Q·D, 1 or H, B, P: P counts the tokens of this step
    context_mask   Q·D, S; None in a graph that is to be captured
    candidates     Q, D, C
    probes         Q, B, D, number of probes
    """

    documents: ir.Value | None
    each_document: ir.Value
    by_row: ir.Value
    by_question: ir.Value
    past_bias: ir.Value
    context_mask: ir.Value | None
    candidates: ir.Value
    probes: ir.Value


def computed_shapes(
    op: Op,
    *,
    log_weights: ir.Value,
    own_past: ir.Value,
    context_attention_mask: ir.Value,
    num_candidates: ir.Value,
    probe_ids: ir.Value,
    d_model: int,
    bias_heads: int,
) -> StepShapes:
    """The shapes read off the inputs of a step, whose axes are those of the signature."""

    def size(value: ir.Value, axis: int) -> ir.Value:
        return op.Shape(value, start=axis, end=axis + 1)

    q, d, b = (size(log_weights, axis) for axis in range(3))
    rows, one, width, heads = (op.Constant(value_ints=[i]) for i in (-1, 1, d_model, bias_heads))
    start, step = op.Constant(value_int=0), op.Constant(value_int=1)
    return StepShapes(
        documents=op.Range(start, op.Squeeze(d), step),
        each_document=op.Concat(q, d, one, one, axis=0),
        by_row=op.Concat(rows, b, width, axis=0),
        by_question=op.Concat(q, d, b, width, axis=0),
        past_bias=op.Concat(rows, heads, op.Shape(own_past, start=1), axis=0),
        context_mask=op.Concat(rows, size(context_attention_mask, 2), axis=0),
        candidates=op.Concat(q, d, num_candidates, axis=0),
        probes=op.Concat(q, b, d, size(probe_ids, 2), axis=0),
    )


def given_shapes(inputs: Mapping[str, ir.Value]) -> StepShapes:
    """The shapes among the inputs of the static decoder, ``shape_NAME`` for each."""
    return StepShapes(
        documents=None,
        each_document=inputs["shape_each_document"],
        by_row=inputs["shape_by_row"],
        by_question=inputs["shape_by_question"],
        past_bias=inputs["shape_past_bias"],
        context_mask=None,
        candidates=inputs["shape_candidates"],
        probes=inputs["shape_probes"],
    )


@dataclass(frozen=True)
class StaticInputs:
    """What the static decoder takes besides.

    places        int64 [Q·D, H, B, K]  where along P this step's keys and values are written
    context_bias  [Q·D, 1, B, S]        0 for a token of a document, very negative for padding
    best_scores   float32 [Q, 1]        the best of ``beam_scores``
    slots         int64 [B]             where along P each beam's token is written, one after the other
    part_candidates  int64 [1]          c, the candidates of each part of the vocabulary: C, or all of a part
    """

    places: ir.Value
    context_bias: ir.Value
    best_scores: ir.Value
    slots: ir.Value
    part_candidates: ir.Value


@dataclass(frozen=True)
class DecoderInputs:
    """The decoder step's inputs; their shapes are in `GeneratorDecoder` and `Mixture`.

    ``static`` is None in the dynamic decoder, ``context_attention_mask`` in the static one.
    """

    token_ids: ir.Value
    own_past: ir.Value
    position: ir.Value
    context_attention_mask: ir.Value | None
    log_weights: ir.Value
    beam_scores: ir.Value
    num_candidates: ir.Value
    probe_ids: ir.Value
    cross: list[tuple[ir.Value, ir.Value] | Int8Memory]
    past: list[tuple[ir.Value, ir.Value]]
    shapes: StepShapes
    static: StaticInputs | None = None
