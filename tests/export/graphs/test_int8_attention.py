"""Cross-attention in 8 bits beside the same attention in floats, and what it must not depend on."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from ragengine.bundle.onnx_reader import FLOAT, INT64, Value
from ragengine.bundle.signatures import Signature
from ragengine_export.graphs.int8_attention import hidden_bias, int8_attention, int8_memory
from ragengine_export.graphs.models import GraphOfSignature

N, S, H, K, B = 3, 37, 4, 16, 5


@pytest.fixture(scope="module", params=[True, False], ids=["scaled", "unscaled"])
def scaled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def session(scaled: bool, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    inputs = {
        "query": Value(FLOAT, ("N", "B", H * K)),
        "key": Value(FLOAT, ("N", "S", H, K)),
        "value": Value(FLOAT, ("N", "S", H, K)),
        "mask": Value(INT64, ("N", "S")),
    }
    graph = GraphOfSignature("attention", Signature(inputs, {"y": Value(FLOAT, ("N", "B", H * K))}))
    op, given = graph.op, graph.inputs
    kept = int8_memory(op, given["key"], given["value"])
    bias = hidden_bias(op, op.Cast(given["mask"], to=ir.DataType.INT32))
    y = int8_attention(op, given["query"], kept, bias, num_heads=H, head_size=K, scaled=scaled)
    path = tmp_path_factory.mktemp("attention") / "attention.onnx"
    ir.save(graph.model([y]), path)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


Arrays = dict[str, NDArray[np.generic]]


def random_inputs(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    key, value = (rng.normal(0, scale, (N, S, H, K)).astype(np.float32) for _ in range(2))
    key[:, :, 1] *= 50  # heads, tokens and queries of very different size
    value[:, ::3] *= 0.01
    query = rng.normal(0, 1, (N, B, H * K)).astype(np.float32)
    query[:, 1] *= 1e-3
    query[:, 2] = 0
    lengths = np.array([S, 20, 1])
    mask = (np.arange(S) < lengths[:, None]).astype(np.int64)
    return {"query": query, "key": key, "value": value, "mask": mask}


def in_floats(inputs: Arrays, scaled: bool) -> NDArray[np.float64]:
    query = inputs["query"].astype(np.float64).reshape(N, B, H, K)
    scores = np.einsum("nbhk,nshk->nhbs", query, inputs["key"].astype(np.float64))
    scores *= K**-0.5 if scaled else 1.0
    scores[np.broadcast_to(inputs["mask"][:, None, None] == 0, scores.shape)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("nhbs,nshk->nbhk", weights, inputs["value"].astype(np.float64)).reshape(N, B, H * K)


def test_it_is_attention_to_within_the_rounding_of_8_bits(
    session: ort.InferenceSession, scaled: bool
) -> None:
    inputs = random_inputs(0, scale=0.2)
    (y,) = session.run(None, inputs)
    expected = in_floats(inputs, scaled)
    # Head 1 has scores in the hundreds, of which an eighth of a bit decides which token is read.
    others = np.array([0, 2, 3])
    found, wanted = (x.reshape(N, B, H, K)[:, :, others] for x in (y, expected))
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    assert np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()) < 0.02


def test_numbers_that_8_bits_hold_come_out_as_in_floats(session: ort.InferenceSession, scaled: bool) -> None:
    """Keys, values and queries of one size are exact; only the weights of a row are rounded."""
    rng = np.random.default_rng(3)
    inputs = random_inputs(1)
    for name in ("query", "key", "value"):
        inputs[name] = rng.choice([-1.0, 1.0], inputs[name].shape).astype(np.float32)
    (y,) = session.run(None, inputs)
    expected = in_floats(inputs, scaled)
    assert np.abs(y - expected).max() < 37 / 510  # half of 1/255 of the largest weight, a token


def test_padding_and_neighbours_change_no_bit(session: ort.InferenceSession) -> None:
    """What lies in the padding, another document of the batch, another beam."""
    inputs = random_inputs(2)
    (y,) = session.run(None, inputs)
    rng = np.random.default_rng(9)
    hidden = inputs["mask"] == 0
    changed = {name: values.copy() for name, values in inputs.items()}
    for name in ("key", "value"):
        changed[name][hidden] = 1000 * rng.normal(size=changed[name][hidden].shape)
        changed[name][0] *= 7  # the first document
    changed["query"][:, 3] *= 1e4  # a beam
    (after,) = session.run(None, changed)
    same = np.array([0, 1, 2, 4])
    assert np.array_equal(after[1:, same], y[1:, same])
    assert not np.array_equal(after[0], y[0])
    alone = session.run(None, {name: values[1:2] for name, values in inputs.items()})[0]
    assert np.array_equal(alone, y[1:2])


def test_zeros_are_no_division_by_zero(session: ort.InferenceSession) -> None:
    inputs = {name: np.zeros_like(values) for name, values in random_inputs(4).items()}
    inputs["mask"] += 1
    (y,) = session.run(None, inputs)
    assert not y.any()
