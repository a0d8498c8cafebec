"""The real `tritonclient` talks to the server; what it never sends is tried by hand."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.served import QUESTION, Served

triton = pytest.importorskip("tritonclient.http", reason="the extra serve-test is not installed")


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Any]:
    found = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield found
    found.close()


def test_server_and_model_are_described(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("worldfacts")
    assert client.is_model_ready("worldfacts", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("worldfacts")
    assert [(i["name"], i["datatype"]) for i in metadata["inputs"]] == [("question", "BYTES")]
    with pytest.raises(triton.InferenceServerException, match="no model"):
        client.get_model_metadata("nothing")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_questions_are_answered(client: Any, server: Served, binary: bool, shape: list[int]) -> None:
    questions = [QUESTION, "Où est Łódź?"]
    tensor = triton.InferInput("question", shape, "BYTES")
    array = np.array([q.encode() for q in questions], object).reshape(shape)
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("answer", "log_prob", "json")
    ]
    found = client.infer("worldfacts", [tensor], outputs=outputs, request_id="7", parameters={"num_beams": 2})
    engine = server.state.models.get(None).engine
    expected = [engine.generate(question, num_beams=2) for question in questions]
    assert found.get_response()["id"] == "7"
    answers = [a.decode() if isinstance(a, bytes) else a for a in found.as_numpy("answer").ravel()]
    assert answers == [answer.text for answer in expected]
    assert list(found.as_numpy("answer").shape) == shape
    np.testing.assert_allclose(
        found.as_numpy("log_prob").ravel(), [answer.log_prob for answer in expected], atol=1e-4
    )
    objects = [json.loads(text) for text in found.as_numpy("json").ravel()]
    assert [d["id"] for d in objects[0]["documents"]] == [d.id for d in expected[0].documents]


def test_wrong_options_are_refused(client: Any) -> None:
    tensor = triton.InferInput("question", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], object))
    with pytest.raises(triton.InferenceServerException, match="num_beams is 0"):
        client.infer("worldfacts", [tensor], parameters={"num_beams": 0})


GOOD: dict[str, Any] = {"inputs": [{"name": "question", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": "x"},
        {"inputs": [{**GOOD["inputs"][0], "name": "other"}]},
        {"inputs": [{**GOOD["inputs"][0], "datatype": "FP32"}]},
        {"inputs": [{**GOOD["inputs"][0], "shape": [2]}]},
        {"inputs": [{**GOOD["inputs"][0], "shape": [1, 2]}]},
        {"inputs": [{**GOOD["inputs"][0], "shape": [-1]}]},
        {"inputs": [{**GOOD["inputs"][0], "shape": ["a"]}]},
        {"inputs": [{**GOOD["inputs"][0], "data": [1]}]},
        {"inputs": [{**GOOD["inputs"][0], "parameters": 3}]},
        {"outputs": [{"name": "nothing"}]},
        {"outputs": []},
        {"parameters": []},
        {"parameters": {"timeout": -1}},
        {"parameters": {"num_beams": "2"}},
    ],
)
def test_a_wrong_request_is_refused(server: Served, change: dict[str, Any]) -> None:
    reply = server.post("/v2/models/worldfacts/infer", GOOD | change)
    assert reply.status == 400, reply.content
    assert isinstance(reply.content["error"], str)


@pytest.mark.parametrize(
    ("tail", "length"),
    [
        (b"\x01", None),
        (struct.pack("<I", 9) + b"x", None),
        (struct.pack("<I", 1) + b"\xff", None),
        (b"", 10**6),
        (b"", "1" * 5000),  # more digits than Python reads
        (b"", "-1"),
    ],
)
def test_wrong_binary_data_is_refused(server: Served, tail: bytes, length: int | str | None) -> None:
    tensor = {
        "name": "question",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(tail)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    told = str(len(head) if length is None else length)
    reply = server.post(
        "/v2/models/worldfacts/infer",
        head + tail,
        Inference_Header_Content_Length=told,
        Content_Type="application/octet-stream",
    )
    assert reply.status == 400, reply.content
