"""``probe_graph.onnx``, the smallest graph that shows whether an execution provider computes: y = Abs(x).

    python -m ragengine.runtime.probe_graph

writes the file, which takes onnx-ir (extra ``export``); the engine only reads it.
"""

from pathlib import Path
from typing import Final

PROBE_GRAPH: Final = Path(__file__).with_suffix(".onnx")
_OPSET: Final = 17
_IR_VERSION: Final = 8


def make_probe_graph() -> bytes:
    """The ONNX model of one node: ``x`` and ``y`` float32 [1], y = Abs(x)."""
    import onnx_ir as ir

    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Abs", [x], name="abs")
    (y,) = node.outputs
    y.name, y.shape, y.type = "y", x.shape, x.type
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": _OPSET}, name="probe")
    model: bytes = ir.to_proto(ir.Model(graph, ir_version=_IR_VERSION)).SerializeToString()
    return model


if __name__ == "__main__":
    PROBE_GRAPH.write_bytes(make_probe_graph())
