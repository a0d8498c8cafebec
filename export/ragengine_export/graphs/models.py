"""From modules with bound weights to ONNX models with the inputs and outputs of a signature.

:mod:`ragengine.bundle.signatures` declares every name, type and axis.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import GraphBuilder, nn

from ragengine.bundle.onnx_reader import Value
from ragengine.bundle.signatures import MIXTURE_OUTPUTS, Signature, text_encoder_signature
from ragengine_export.graphs.decoder_step import (
    DecoderInputs,
    StaticInputs,
    StepShapes,
    computed_shapes,
    given_shapes,
)
from ragengine_export.graphs.generator import CrossProjections, GeneratorDecoder
from ragengine_export.graphs.int8_attention import Int8Memory

OPSET = 20
IR_VERSION = 10  # what onnx opset 20 came with; every onnxruntime since 1.18 reads it


def text_encoder_model(encoder: nn.Module, dimension: int) -> ir.Model:
    """A question or passage encoder."""
    graph = GraphOfSignature("text_encoder", text_encoder_signature(dimension))
    return graph.model([encoder(graph.op, graph.inputs["input_ids"], graph.inputs["attention_mask"])])


def encoder_model(encoder: nn.Module, signature: Signature) -> ir.Model:
    """The generator's encoder of documents."""
    graph = GraphOfSignature("generator_encoder", signature)
    return graph.model([encoder(graph.op, graph.inputs["input_ids"], graph.inputs["attention_mask"])])


def cross_model(cross: CrossProjections, signature: Signature) -> ir.Model:
    """The decoder's keys and values of encoded documents."""
    graph = GraphOfSignature("generator_cross", signature)
    return graph.model(cross(graph.op, graph.inputs["states"]))


def dynamic_decoder_model(decoder: GeneratorDecoder, signature: Signature) -> ir.Model:
    """The decoder step whose past grows; :class:`GeneratorDecoder` describes its inputs and outputs."""
    graph = GraphOfSignature("generator_decoder", signature)
    given = graph.inputs
    shapes = computed_shapes(
        graph.op,
        log_weights=given["log_weights"],
        own_past=given["own_past"],
        context_attention_mask=given["context_attention_mask"],
        num_candidates=given["num_candidates"],
        probe_ids=given["probe_ids"],
        d_model=decoder.d_model,
        bias_heads=decoder.bias_heads,
    )
    mask = given["context_attention_mask"]
    return _decoder_model(graph, decoder, shapes, context_attention_mask=mask, static=None)


def static_decoder_model(decoder: GeneratorDecoder, signature: Signature) -> ir.Model:
    """The decoder step with room for P tokens, for CUDA graphs.

    No node computes a shape: shapes are inputs (:func:`ragengine.bundle.signatures.shape_inputs`), which CUDA
    reads on the host.  ``slots`` int64 [B] says where along P this step's tokens are written.
    """
    graph = GraphOfSignature("generator_step", signature)
    op, given = graph.op, graph.inputs
    slots = op.Unsqueeze(given["slots"], op.Constant(value_ints=[1]))
    static = StaticInputs(
        places=op.Expand(slots, given["shape_update"]),
        context_bias=given["context_bias"],
        best_scores=given["best_scores"],
        slots=given["slots"],
        part_candidates=given["part_candidates"],
    )
    return _decoder_model(graph, decoder, given_shapes(given), context_attention_mask=None, static=static)


def _decoder_model(
    graph: "GraphOfSignature",
    decoder: GeneratorDecoder,
    shapes: StepShapes,
    *,
    context_attention_mask: ir.Value | None,
    static: StaticInputs | None,
) -> ir.Model:
    names = ("token_ids", "own_past", "position", "log_weights", "beam_scores", "num_candidates", "probe_ids")
    inputs = DecoderInputs(
        **{name: graph.inputs[name] for name in names},
        context_attention_mask=context_attention_mask,
        cross=graph.cross(),
        past=graph.pairs("past"),
        shapes=shapes,
        static=static,
    )
    candidates, presents = decoder(graph.op, inputs)
    return graph.model([*(candidates[name] for name in MIXTURE_OUTPUTS), *presents])


class GraphOfSignature:
    """A graph in the making, with the inputs of its signature."""

    def __init__(self, name: str, signature: Signature) -> None:
        imports = {"": OPSET, "com.microsoft": 1}
        self._graph = ir.Graph(name=name, inputs=[], outputs=[], nodes=[], opset_imports=imports)
        self._builder = GraphBuilder(self._graph)
        self._signature = signature
        self.op = self._builder.op
        self.inputs = {
            name: self._builder.input(name, ir.DataType(value.data_type), list(_axes(value)))
            for name, value in signature.inputs.items()
        }

    def pairs(self, kind: str) -> list[tuple[ir.Value, ir.Value]]:
        """The inputs of this kind as (key, value) of each layer."""
        found = self._named(kind)
        return list(zip(found[::2], found[1::2], strict=True))

    def cross(self) -> "list[tuple[ir.Value, ir.Value] | Int8Memory]":
        """The keys and values of the documents, of each layer."""
        if "cross_key_scale_0" not in self.inputs:
            return [*self.pairs("cross")]
        found, parts = self._named("cross"), len(Int8Memory._fields)
        return [Int8Memory(*layer) for layer in zip(*(found[n::parts] for n in range(parts)), strict=True)]

    def _named(self, kind: str) -> list[ir.Value]:
        return [value for name, value in self.inputs.items() if name.startswith(f"{kind}_")]

    def model(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """The whole graph, which returns ``outputs`` in the signature's order."""
        for (name, declared), value in zip(self._signature.outputs.items(), outputs, strict=True):
            value.type = ir.TensorType(ir.DataType(declared.data_type))
            value.shape = ir.Shape(_axes(declared))
            self._builder.add_output(value, name)
        return ir.Model(self._graph, ir_version=IR_VERSION)


def _axes(value: Value) -> tuple[int | str, ...]:
    return value.axes or ()
