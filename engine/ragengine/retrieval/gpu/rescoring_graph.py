"""The graph that scores candidates, ``rescoring.onnx``; as a program, it writes that file anew.

    python -m ragengine.retrieval.gpu.rescoring_graph

The file is part of the package because making it needs ``onnx``, which the engine does without.
"""

from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).with_name("rescoring.onnx")


def make_graph() -> Any:
    """``scores[q, k] = vectors[rows[q, k]] · questions[q]``, multiplied and summed in float64.

        vectors fp16 [N, E] ─┐
        rows int64 [Q, K] ── Gather ─ Cast ─────────────┐
        questions fp32 [Q, E] ─ Cast ─ Unsqueeze ─── MatMul ─ Squeeze ─ Cast ─ scores fp32 [Q, K]

    Returns:
        The ``onnx.ModelProto``.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["vectors", "rows"], ["found"], axis=0),
        helper.make_node("Cast", ["found"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["questions"], ["wide_questions"], to=TensorProto.DOUBLE),
        helper.make_node("Unsqueeze", ["wide_questions", "last"], ["columns"]),
        helper.make_node("MatMul", ["wide", "columns"], ["products"]),
        helper.make_node("Squeeze", ["products", "last"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["scores"], to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("vectors", TensorProto.FLOAT16, ["N", "E"]),
        value("rows", TensorProto.INT64, ["Q", "K"]),
        value("questions", TensorProto.FLOAT, ["Q", "E"]),
    ]
    outputs = [value("scores", TensorProto.FLOAT, ["Q", "K"])]
    last = numpy_helper.from_array(np.array([-1], np.int64), "last")
    graph = helper.make_graph(nodes, "rescore", inputs, outputs, [last])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    PATH.write_bytes(make_graph().SerializeToString())
