"""From modules with bound weights to ONNX models with named inputs and outputs."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnxscript import GraphBuilder

from ragengine_export.graphs.bart import (
    BartCrossProjections,
    BartDecoder,
    BartEncoder,
    BartShape,
    StepInputs,
)
from ragengine_export.graphs.bert import BertEncoder

OPSET = 20
IR_VERSION = 10  # what onnx opset 20 came with; every onnxruntime since 1.18 reads it

INT64, FLOAT, BOOL = ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL
Axes = Sequence[int | str]

MIXTURE_OUTPUTS: dict[str, tuple[ir.DataType, Axes]] = {
    "candidate_scores": (FLOAT, ["Q", "C"]),
    "candidate_beams": (INT64, ["Q", "C"]),
    "candidate_tokens": (INT64, ["Q", "C"]),
    "candidate_log_probs": (FLOAT, ["Q", "D", "C"]),
    "probe_log_probs": (FLOAT, ["Q", "D", "B", "P"]),
}


def text_encoder_model(encoder: BertEncoder, dimension: int) -> ir.Model:
    """``input_ids``, ``attention_mask`` int64 [N, S] -> ``vectors`` float32 [N, E]."""
    graph, builder = _graph("text_encoder")
    ids = builder.input("input_ids", INT64, ["N", "S"])
    mask = builder.input("attention_mask", INT64, ["N", "S"])
    _output(builder, "vectors", encoder(builder.op, ids, mask), FLOAT, ["N", dimension])
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_encoder_model(encoder: BartEncoder, shape: BartShape) -> ir.Model:
    """``input_ids``, ``attention_mask`` int64 [N, S] -> ``states`` float32 [N, S, d_model]."""
    graph, builder = _graph("generator_encoder")
    ids = builder.input("input_ids", INT64, ["N", "S"])
    mask = builder.input("attention_mask", INT64, ["N", "S"])
    _output(builder, "states", encoder(builder.op, ids, mask), FLOAT, ["N", "S", shape.d_model])
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_cross_model(cross: BartCrossProjections, shape: BartShape) -> ir.Model:
    """``states`` float32 [Q·D, S, d_model] -> ``cross_key_l``, ``cross_value_l`` [Q·D, H, S, K]."""
    graph, builder = _graph("generator_cross")
    states = builder.input("states", FLOAT, ["Q*D", "S", shape.d_model])
    for name, value in zip(_layer_names("cross", shape), cross(builder.op, states), strict=True):
        _output(builder, name, value, FLOAT, _cross_axes(shape))
    return ir.Model(graph, ir_version=IR_VERSION)


def generator_decoder_model(decoder: BartDecoder, shape: BartShape) -> ir.Model:
    """The decoder step; its inputs and outputs are described at :class:`BartDecoder`."""
    graph, builder = _graph("generator_decoder")
    add: Callable[..., ir.Value] = builder.input
    past: Axes = ["Q*D", shape.decoder_heads, "P", shape.d_model // shape.decoder_heads]
    present: Axes = ["Q*D", shape.decoder_heads, "P+B", shape.d_model // shape.decoder_heads]
    step = StepInputs(
        token_ids=add("token_ids", INT64, ["Q", "B"]),
        own_past=add("own_past", BOOL, ["Q", "B", "P+B"]),
        position=add("position", INT64, [1]),
        context_attention_mask=add("context_attention_mask", INT64, ["Q", "D", "S"]),
        log_weights=add("log_weights", FLOAT, ["Q", "D", "B"]),
        beam_scores=add("beam_scores", FLOAT, ["Q", "B"]),
        num_candidates=add("num_candidates", INT64, [1]),
        probe_ids=add("probe_ids", INT64, ["Q", "B", "P"]),
        cross=_pairs([add(name, FLOAT, _cross_axes(shape)) for name in _layer_names("cross", shape)]),
        past=_pairs([add(name, FLOAT, past) for name in _layer_names("past", shape)]),
    )
    outputs = decoder(builder.op, step)
    for (name, (dtype, axes)), value in zip(MIXTURE_OUTPUTS.items(), outputs, strict=False):
        _output(builder, name, value, dtype, axes)
    for name, value in zip(_layer_names("present", shape), outputs[len(MIXTURE_OUTPUTS) :], strict=True):
        _output(builder, name, value, FLOAT, present)
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
    return ["Q*D", shape.decoder_heads, "S", shape.d_model // shape.decoder_heads]


def _pairs(values: list[ir.Value]) -> list[tuple[ir.Value, ir.Value]]:
    return list(zip(values[::2], values[1::2], strict=True))
