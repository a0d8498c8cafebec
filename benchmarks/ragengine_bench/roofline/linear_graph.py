"""A graph of one linear layer, whose speed is the GEMM rate of a precision.

It is the exporter's own :class:`Linear`, so the operator is the one that bundles of that precision use; its
weight is a constant, which onnxruntime packs once, as for a bundle.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder, nn

from ragengine_export.choices import Precision
from ragengine_export.graphs.layers import Linear
from ragengine_export.graphs.models import IR_VERSION, OPSET
from ragengine_export.graphs.values import Op
from ragengine_export.weights import WeightWriter, bind

IN_FEATURES, OUT_FEATURES = 1024, 4096  # the largest layer of BART-large


def write_linear(folder: Path, precision: Precision) -> Path:
    """A graph ``x`` float32 [M, K] -> ``y`` [M, N] of one linear layer with random weights."""
    module = _OneLinear()
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((OUT_FEATURES, IN_FEATURES), np.float32) * 0.02
    folder.mkdir(parents=True)
    with WeightWriter(folder) as writer:
        bind(module, {"linear.weight": weight}, writer, "linear layer", precision)
    imports = {"": OPSET, "com.microsoft": 1}
    graph = ir.Graph(name="linear", inputs=[], outputs=[], nodes=[], opset_imports=imports)
    builder = GraphBuilder(graph)
    y = module(builder.op, builder.input("x", ir.DataType.FLOAT, ["M", IN_FEATURES]))
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["M", OUT_FEATURES])
    builder.add_output(y, "y")
    path = folder / "linear.onnx"
    ir.save(ir.Model(graph, ir_version=IR_VERSION), path)
    return path


class _OneLinear(nn.Module):  # type: ignore[misc]  # onnxscript has no types
    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(IN_FEATURES, OUT_FEATURES, bias=False)

    def forward(self, op: Op, x: ir.Value) -> ir.Value:
        y: ir.Value = self.linear(op, x)
        return y
