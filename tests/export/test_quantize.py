"""Round-to-nearest quantisation: its error bounds, and that onnxruntime reads the bytes as we mean them."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnxscript import GraphBuilder, nn

from ragengine_export.graphs.weight_formats import Int4Weight, Int8Weight, StoredWeight
from ragengine_export.quantize import int4_blocks, int8_rows

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(-100, 100, width=32),
)


@given(matrices)
def test_int8_is_within_half_a_step_of_each_row(weight: NDArray[np.float32]) -> None:
    values, scales = int8_rows(weight)
    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).max() <= 127
    error = np.abs(values * scales[:, None] - weight)
    assert (error <= scales[:, None] * 0.5001 + 1e-30).all()


@given(matrices, st.sampled_from([16, 32]))
def test_int4_is_within_a_step_of_each_block(weight: NDArray[np.float32], block_size: int) -> None:
    blocks = int4_blocks(weight, block_size)
    (n, k), count = weight.shape, blocks.scales.shape[1]
    values = _unpacked(blocks.values).astype(np.float32)
    zeros = _unpacked(blocks.zeros)[:, :count].astype(np.float32)
    restored = ((values - zeros[..., None]) * blocks.scales[..., None]).reshape(n, -1)
    step = np.repeat(blocks.scales, block_size, axis=1)
    assert (np.abs(restored[:, :k] - weight) <= step[:, :k] * 1.001 + 1e-30).all()
    assert not restored[:, k:].any()  # the padding of K adds nothing


@pytest.mark.parametrize(("n", "k"), [(7, 64), (40, 33), (1, 16)])
def test_onnxruntime_multiplies_as_the_numbers_say(n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(n, k)).astype(np.float32), rng.normal(size=(5, k)).astype(np.float32)
    bias = rng.normal(size=n).astype(np.float32)
    expected = x @ weight.T + bias

    values, scales = int8_rows(weight)
    for stored in (values.T, values):  # the matrix transposed for the operator, and a table's layout
        parameters = _parameter("w", stored), _parameter("s", scales)
        int8 = Int8Weight(*parameters, transposed=stored is not values)
        assert np.abs(_matmul(int8, parameters, x, bias) - expected).max() < 0.03 * np.abs(expected).max()

    blocks = int4_blocks(weight, 16)
    packed = (
        _parameter("w", blocks.values),
        _parameter("s", blocks.scales),
        _parameter("z", blocks.zeros),
    )
    int4 = Int4Weight(*packed, shape=(n, k), block_size=16)
    zeros = _unpacked(blocks.zeros)[:, : blocks.scales.shape[1]].astype(np.float32)
    restored = (_unpacked(blocks.values) - zeros[..., None]) * blocks.scales[..., None]
    exact = x @ restored.reshape(n, -1)[:, :k].T + bias
    assert np.abs(_matmul(int4, packed, x, bias) - exact).max() < 0.02 * np.abs(exact).max()


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _parameter(name: str, values: NDArray[np.generic]) -> nn.Parameter:
    return nn.Parameter(values.shape, name=name, data=ir.tensor(np.ascontiguousarray(values), name=name))


def _matmul(
    weight: StoredWeight,
    parameters: tuple[nn.Parameter, ...],
    x: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> NDArray[np.float32]:
    graph = ir.Graph(name="g", inputs=[], outputs=[], nodes=[], opset_imports={"": 20, "com.microsoft": 1})
    builder = GraphBuilder(graph)
    for parameter in (*parameters, added := _parameter("b", bias)):
        graph.initializers[str(parameter.name)] = parameter
    y = weight.matmul(builder.op, builder.input("x", ir.DataType.FLOAT, list(x.shape)), added)
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([len(x), len(bias)])
    builder.add_output(y, "y")
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result
