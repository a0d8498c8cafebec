"""The Open Inference Protocol (KServe V2) over HTTP, with its extension for binary tensors.

Input ``question``, BYTES [Q] or [Q, 1]; outputs in the shape of the input: ``answer`` and ``json`` (the
object of ``/v1/answer``), BYTES, and ``log_prob``, FP32.  Generation options and ``filter`` are parameters of
the request.
"""

import json
import struct
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ragengine.options import OPTION_NAMES
from ragengine.storage.strict_json import parse_json
from ragengine.version import __version__
from ragengine_serve.api.asking import answer_task, answers, filter_of, questions_of
from ragengine_serve.api.operations import readiness
from ragengine_serve.api.options import chosen_options
from ragengine_serve.api.schemas import ERRORS as FAULTS
from ragengine_serve.api.schemas import InferenceFault
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import JsonReply
from ragengine_serve.models.served_model import ServedModel
from ragengine_serve.scheduling.works import Reads
from ragengine_serve.state import ServerState, state_of

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": InferenceFault, "description": told["description"]} for status, told in FAULTS.items()
}
router = APIRouter(prefix="/v2", tags=["KServe V2"], responses=ERRORS)
State = Depends(state_of)
_LENGTH = "Inference-Header-Content-Length"
_OUTPUTS = {"answer": "BYTES", "log_prob": "FP32", "json": "BYTES"}
_VERSION = "1"


@router.get("")
async def server(state: ServerState = State) -> Response:
    """The server and its extensions."""
    return JsonReply({"name": "ragengine", "version": __version__, "extensions": ["binary_tensor_data"]})


@router.get("/health/live")
async def live() -> Response:
    """The process lives."""
    return JsonReply({"live": True})


@router.get("/health/ready")
async def ready(state: ServerState = State) -> Response:
    """The server takes requests."""
    status = readiness(state)
    return JsonReply({"ready": status == "ok"}, 200 if status == "ok" else 503)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(name: str, version: str = _VERSION, state: ServerState = State) -> Response:
    """Inputs and outputs of a model."""
    model = _model(state, name, version)
    return JsonReply(
        {
            "name": model.name,
            "versions": [_VERSION],
            "platform": "ragengine_onnxruntime",
            "inputs": [{"name": "question", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in _OUTPUTS.items()],
        }
    )


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(name: str, version: str = _VERSION, state: ServerState = State) -> Response:
    """A model takes requests."""
    return JsonReply({"name": _model(state, name, version).name, "ready": True})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str = _VERSION, state: ServerState = State) -> Response:
    """Answer questions."""
    model = _model(state, name, version)
    header, tensors = _parts(await request.body(), request.headers.get(_LENGTH))
    texts, shape = _questions(header, tensors)
    parameters = _object(header.get("parameters", {}), "parameters")
    wanted = _wanted(header, parameters)
    given = {key: value for key, value in parameters.items() if key in OPTION_NAMES}
    options = chosen_options(given, model, state.settings)
    questions = questions_of(texts, state, "inputs")
    reads = Reads(filter=filter_of(parameters.get("filter")))
    tasks = [answer_task(model, question, options, reads) for question in questions]
    found = await answers(request, state, tasks, _deadline_ms(parameters))
    values: dict[str, list[Any]] = {
        "answer": [answer["answer"] for answer in found],
        "log_prob": [answer["log_prob"] for answer in found],
        "json": [json.dumps(answer, ensure_ascii=False) for answer in found],
    }
    reply: dict[str, Any] = {"model_name": model.name, "model_version": _VERSION, "outputs": []}
    if isinstance(header.get("id"), str):
        reply["id"] = header["id"]
    binary = b""
    for output, as_binary in wanted.items():
        tensor: dict[str, Any] = {"name": output, "datatype": _OUTPUTS[output], "shape": shape}
        if as_binary:
            encoded = _encoded(values[output], _OUTPUTS[output])
            tensor["parameters"] = {"binary_data_size": len(encoded)}
            binary += encoded
        else:
            tensor["data"] = values[output]
        reply["outputs"].append(tensor)
    if not binary:
        return JsonReply(reply)
    head = json.dumps(reply, ensure_ascii=False).encode("utf-8")
    return Response(head + binary, headers={_LENGTH: str(len(head))}, media_type="application/octet-stream")


def _model(state: ServerState, name: str, version: str) -> ServedModel:
    if version != _VERSION:
        raise ApiError(404, "unknown_model", f"The model has the version {_VERSION} alone.", "version")
    return state.models.get(name)


def _parts(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request, and the binary tensors after it."""
    digits = len(str(len(body)))  # int() takes no more than 4300
    if length is not None and not (length.isdecimal() and len(length) <= digits and int(length) <= len(body)):
        raise _wrong(f"{_LENGTH} does not fit the body", None)
    end = len(body) if length is None else int(length)
    try:
        header = parse_json(body[:end].decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise ApiError(400, "invalid_json", "The request's header is not JSON.") from reason
    return _object(header, None), body[end:]


def _questions(header: dict[str, Any], tensors: bytes) -> tuple[list[str], list[int]]:
    """The questions and the shape of their tensor."""
    inputs = header.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise _wrong("inputs must be a list with the one tensor question", "inputs")
    tensor = _object(inputs[0], "inputs")
    shape = tensor.get("shape")
    if tensor.get("name") != "question" or tensor.get("datatype") != "BYTES":
        raise _wrong("the input must be named question and have the datatype BYTES", "inputs")
    if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(type(n) is int for n in shape):
        raise _wrong("the shape must be [Q] or [Q, 1]", "inputs")
    if shape[0] < 1 or shape[1:] not in ([], [1]):
        raise _wrong("the shape must be [Q] or [Q, 1] with Q at least 1", "inputs")
    size = _object(tensor.get("parameters", {}), "inputs").get("binary_data_size")
    if size is None:
        texts = tensor.get("data")
        if (
            isinstance(texts, list)
            and texts
            and all(isinstance(row, list) and len(row) == 1 for row in texts)
        ):
            texts = [row[0] for row in texts]
    else:
        if type(size) is not int or size != len(tensors):
            raise _wrong("binary_data_size is not the size of the binary data", "inputs")
        texts = _decoded(tensors)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong("data must be a list of strings", "inputs")
    if len(texts) != shape[0]:
        raise _wrong(f"there are {len(texts)} questions and the shape is {shape}", "inputs")
    return texts, shape


def _wanted(header: dict[str, Any], parameters: dict[str, Any]) -> dict[str, bool]:
    """The outputs to give, and whether as binary data."""
    default = parameters.get("binary_data_output") is True
    outputs = header.get("outputs")
    if outputs is None:
        return dict.fromkeys(_OUTPUTS, default)
    if not isinstance(outputs, list) or not outputs:
        raise _wrong("outputs must be a list of outputs", "outputs")
    wanted = {}
    for output in outputs:
        name = _object(output, "outputs").get("name")
        if not isinstance(name, str) or name not in _OUTPUTS:
            raise _wrong(f"an output must be one of {', '.join(_OUTPUTS)}", "outputs")
        as_binary = _object(output.get("parameters", {}), "outputs").get("binary_data", default)
        wanted[name] = as_binary is True
    return wanted


def _deadline_ms(parameters: dict[str, Any]) -> int | None:
    """The protocol's ``timeout``, which counts microseconds."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or not 0 < timeout <= 86_400_000_000:
        raise _wrong("timeout must be a number of microseconds, up to a day", "parameters")
    return max(1, timeout // 1000)


def _decoded(tensor: bytes) -> list[str]:
    """The elements of a binary BYTES tensor: each its length, 4 bytes little-endian, and its bytes."""
    texts, place = [], 0
    while place < len(tensor):
        if place + 4 > len(tensor):
            raise _wrong("the binary data ends within a length", "inputs")
        (length,) = struct.unpack_from("<I", tensor, place)
        place += 4
        if place + length > len(tensor):
            raise _wrong("the binary data ends within a question", "inputs")
        try:
            texts.append(tensor[place : place + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise _wrong("a question is not UTF-8", "inputs") from None
        place += length
    return texts


def _encoded(values: list[Any], datatype: str) -> bytes:
    if datatype == "FP32":
        return struct.pack(f"<{len(values)}f", *(float("nan") if v is None else v for v in values))
    texts = [value.encode("utf-8") for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _object(value: Any, field: str | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{field or 'the request'} must be a JSON object", field)
    return value


def _wrong(what: str, field: str | None) -> ApiError:
    return ApiError(400, "invalid_input", f"The inference request cannot be read: {what}.", field)
