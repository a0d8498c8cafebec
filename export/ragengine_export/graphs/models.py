"""From modules with bound weights to ONNX models with named inputs and outputs."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import GraphBuilder

from ragengine_export.graphs.bart import BartCrossProjections, BartDecoder, BartEncoder, BartShape
from ragengine_export.graphs.bert import BertEncoder
from ragengine_export.graphs.decoder_step import (
    FixedInputs,
    Layout,
    StepInputs,
    computed_layout,
    given_layout,
)

OPSET = 20
IR_VERSION = 10  # what onnx opset 20 came with; every onnxruntime since 1.18 reads it

INT64, FLOAT, BOOL = ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL
Axes = Sequence[int | str]

MIXTURE_OUTPUTS: dict[str, tuple[ir.DataType, Axes]] = {
    "candidate_scores": (FLOAT, ["Q", "C"]),
    "candidate_beams": (INT64, ["Q", "C"]),
    "candidate_tokens": (INT64, ["Q", "C"]),
    "candidate_log_probs": (FLOAT, ["Q", "D", "C"]),
    "probe_log_probs": (FLOAT, ["Q", "D", "B", "probes"]),
}


def text_encoder_model(encoder: BertEncoder, dimension: int) -> ir.Model:
    """``input_ids``, ``attention_mask`` int64 [N, S] -> ``vectors`` float32 [N, E]."""
    graph, builder = _graph("text_encoder")
    ids = builder.input("input_ids", INT64, ["N", "S"])
    mask = builder.input("attention_mask", INT64, ["N", "S"])
    _output(builder, "vectors", encoder(builder.op, ids, mask), FLOAT, ["N", dimension])
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_encoder_model(encoder: BartEncoder, shape: BartShape) -> ir.Model:
    """``input_ids``, ``attention_mask`` int64 [N, S] -> ``states`` [N, S, d_model]."""
    graph, builder = _graph("generator_encoder")
    ids = builder.input("input_ids", INT64, ["N", "S"])
    mask = builder.input("attention_mask", INT64, ["N", "S"])
    _output(builder, "states", encoder(builder.op, ids, mask), shape.dtype, ["N", "S", shape.d_model])
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_cross_model(cross: BartCrossProjections, shape: BartShape) -> ir.Model:
    """``states`` [Q·D, S, d_model] -> ``cross_key_l``, ``cross_value_l`` [Q·D, H, S, K]."""
    graph, builder = _graph("generator_cross")
    states = builder.input("states", shape.dtype, ["Q*D", "S", shape.d_model])
    for name, value in zip(_layer_names("cross", shape), cross(builder.op, states), strict=True):
        _output(builder, name, value, shape.dtype, _cross_axes(shape))
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_decoder_model(decoder: BartDecoder, shape: BartShape) -> ir.Model:
    """The decoder step with a growing past; its inputs and outputs are described at :class:`BartDecoder`."""
    graph, builder = _graph("generator_decoder")
    inputs = _step_inputs(builder, shape, "P+B", "P")
    layout = computed_layout(
        builder.op,
        log_weights=inputs["log_weights"],
        own_past=inputs["own_past"],
        context_attention_mask=inputs["context_attention_mask"],
        num_candidates=inputs["num_candidates"],
        probe_ids=inputs["probe_ids"],
        d_model=shape.d_model,
    )
    return _decoder(graph, builder, decoder, shape, inputs, layout, None, "P+B")


def generator_step_model(decoder: BartDecoder, shape: BartShape) -> ir.Model:
    """The decoder step with a past of fixed capacity P, for CUDA graphs.

    No node computes a shape: those are inputs (:class:`Layout`), which CUDA reads on the host.  ``slots``
    int64 [B] says where along P this step's tokens are written.
    """
    graph, builder = _graph("generator_step")
    inputs = _step_inputs(builder, shape, "P", "P", with_mask=False)
    layout = given_layout(builder.input)
    slots = builder.input("slots", INT64, ["B"])
    update = builder.input("shape_update", INT64, [4])  # Q·D, H, B, K
    op = builder.op
    fixed = FixedInputs(
        places=op.Expand(op.Unsqueeze(slots, op.Constant(value_ints=[1])), update),
        context_bias=builder.input("context_bias", shape.dtype, ["Q*D", 1, "B", "S"]),
        best_scores=builder.input("best_scores", FLOAT, ["Q", 1]),
    )
    return _decoder(graph, builder, decoder, shape, inputs, layout, fixed, "P")


def _step_inputs(
    builder: GraphBuilder, shape: BartShape, own: str, past: str, *, with_mask: bool = True
) -> dict[str, ir.Value]:
    """The inputs that both forms of the decoder step have, by name."""
    axes: dict[str, tuple[ir.DataType, Axes]] = {
        "token_ids": (INT64, ["Q", "B"]),
        "own_past": (BOOL, ["Q", "B", own]),
        "position": (INT64, [1]),
        **({"context_attention_mask": (INT64, ["Q", "D", "S"])} if with_mask else {}),
        "log_weights": (FLOAT, ["Q", "D", "B"]),
        "beam_scores": (FLOAT, ["Q", "B"]),
        "num_candidates": (INT64, [1]),
        "probe_ids": (INT64, ["Q", "B", "probes"]),
    }
    axes |= {name: (shape.dtype, _cross_axes(shape)) for name in _layer_names("cross", shape)}
    axes |= {name: (shape.dtype, _past_axes(shape, past)) for name in _layer_names("past", shape)}
    return {name: builder.input(name, dtype, given) for name, (dtype, given) in axes.items()}


def _decoder(
    graph: ir.Graph,
    builder: GraphBuilder,
    decoder: BartDecoder,
    shape: BartShape,
    inputs: dict[str, ir.Value],
    layout: Layout,
    fixed: FixedInputs | None,
    present: str,
) -> ir.Model:
    layers = {
        kind: _pairs([inputs.pop(name) for name in _layer_names(kind, shape)]) for kind in ("cross", "past")
    }
    given: dict[str, Any] = {"context_attention_mask": None, **inputs, **layers}
    outputs = decoder(builder.op, StepInputs(**given, layout=layout, fixed=fixed))
    for (name, (dtype, axes)), value in zip(MIXTURE_OUTPUTS.items(), outputs, strict=False):
        _output(builder, name, value, dtype, axes)
    for name, value in zip(_layer_names("present", shape), outputs[len(MIXTURE_OUTPUTS) :], strict=True):
        _output(builder, name, value, shape.dtype, _past_axes(shape, present))
    return ir.Model(graph, ir_version=IR_VERSION)


def _graph(name: str) -> tuple[ir.Graph, GraphBuilder]:
    imports = {"": OPSET, "com.microsoft": 1}
    graph = ir.Graph(name=name, inputs=[], outputs=[], nodes=[], opset_imports=imports)
    return graph, GraphBuilder(graph)


def _output(builder: GraphBuilder, name: str, value: ir.Value, dtype: ir.DataType, axes: Axes) -> None:
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(axes)
    builder.add_output(value, name)


def _layer_names(kind: str, shape: BartShape) -> list[str]:
    return [f"{kind}_{part}_{layer}" for layer in range(shape.decoder_layers) for part in ("key", "value")]


def _cross_axes(shape: BartShape) -> Axes:
    return _past_axes(shape, "S")


def _past_axes(shape: BartShape, length: str) -> Axes:
    return ["Q*D", shape.decoder_heads, length, shape.head_size]


def _pairs(values: list[ir.Value]) -> list[tuple[ir.Value, ir.Value]]:
    return list(zip(values[::2], values[1::2], strict=True))
