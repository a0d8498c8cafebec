"""The decoder step that CUDA captures, checked without a GPU: every node has a CUDA kernel for its types,
what a kernel reads on the host lies there, and nothing computes a shape."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.device import graph_device
from ragengine.bundle.manifest import STEP_GRAPH
from ragengine.bundle.signatures import HIDDEN_HALF
from ragengine.errors import DeviceError
from ragengine.generation.decoders.base import StepInputs
from ragengine.generation.decoders.buckets import Bucket
from ragengine.generation.decoders.static import host_inputs
from ragengine.generation.model import GeneratorModel
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_export import export_checkpoint
from tests.support.cuda_kernels import KERNELS
from tests.support.models import save_bart, save_dpr, save_generator

SHAPE_OPERATORS = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero", "Squeeze"}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
VARIANTS: list[dict[str, Any]] = [
    {"name": "bart", "activation": "gelu"},
    {"name": "bart", "scale_embedding": True, "activation": "relu"},
    {"name": "bart", "activation": "gelu_new"},
    {"name": "bart", "activation": "silu"},
    *({"name": name} for name in ("t5", "flan-t5", "mbart", "marian")),
]
OTHERS = [{"name": name} for name in GENERATORS if name not in {variant["name"] for variant in VARIANTS}]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    scope="module",
    params=[*VARIANTS, *(pytest.param(variant, marks=pytest.mark.slow) for variant in OTHERS)],
    ids=str,
)
def bundle(
    request: pytest.FixtureRequest, precision: Any, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("step")
    dpr, generator = save_dpr(folder / "dpr"), save_generator(folder / "generator", **request.param)
    export_checkpoint(
        None, folder / "bundle", precision, question_encoder=dpr, generator=generator, check=False
    )
    return Bundle.open(folder / "bundle")


def graphs(bundle: Bundle, tmp_path: Path) -> dict[str, onnx.ModelProto]:
    """The step as it is written, and as onnxruntime's device-independent rewriting leaves it."""
    path = bundle.file(bundle.manifest.generator.path, STEP_GRAPH)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "rewritten.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "w.bin")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "64")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    del session
    return {
        "written": onnx.load(path, load_external_data=False),
        "rewritten": onnx.load(tmp_path / "rewritten.onnx", load_external_data=False),
    }


def type_name(number: int) -> str:
    return TensorProto.DataType.Name(number).lower()


def bound_on_host(bundle: Bundle) -> set[str]:
    """The graph inputs that the engine binds in the host's memory."""
    sizes = Bucket(1, 1, 1, 32, 16).sizes | {"C": 16, "probes": 1}
    return set(host_inputs(bundle.manifest.generator, sizes))


def faults(model: onnx.ModelProto, on_host: set[str]) -> list[str]:
    """Why CUDA could not run this graph alone."""
    graph, found = model.graph, []
    types = {value.name: type_name(value.type.tensor_type.elem_type) for value in graph.input}
    types |= {tensor.name: type_name(tensor.data_type) for tensor in graph.initializer}
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        where = f"{node.op_type} {node.name}"
        if node.op_type in SHAPE_OPERATORS | CONTROL_FLOW:
            found.append(f"{where} computes a shape or decides what runs")
            types |= dict.fromkeys(node.output, "int64")
            continue
        if node.op_type == "Constant":
            constants.update(node.output)
            types[node.output[0]] = constant_type(node)
            continue
        if all(value in constants for value in node.input):  # computed once, when the graph is loaded
            constants.update(node.output)
            to = next((type_name(a.i) for a in node.attribute if a.name == "to"), types[node.input[0]])
            types |= dict.fromkeys(node.output, to)
            continue
        kernel = KERNELS.get((node.domain.replace("ai.onnx", ""), node.op_type))
        if kernel is None:
            found.append(f"{where} has no CUDA kernel that can be captured")
            types |= dict.fromkeys(node.output, types[node.input[0]])
            continue
        bound: dict[str, str] = {}
        names = kernel.inputs.split()
        for place, value in enumerate(node.input):
            if not value:
                continue
            variable = names[0] if kernel.variadic else names[place]
            if bound.setdefault(variable, types[value]) != types[value]:
                found.append(f"{where} mixes {bound[variable]} and {types[value]}")
            if types[value] not in kernel.types[variable]:
                found.append(f"{where} has no CUDA kernel for {types[value]}")
            if place in kernel.host and value not in constants | on_host:
                found.append(f"{where} reads {value} on the host, which is made on the device")
            if place not in kernel.host and value in on_host:
                found.append(f"{where} reads {value} on the device, which is on the host")
        if node.op_type == "Cast":
            types[node.output[0]] = type_name(next(a.i for a in node.attribute if a.name == "to"))
        for value, variable in zip(node.output, kernel.outputs.split(), strict=False):
            types[value] = bound.get(variable) or next(iter(kernel.types[variable]))
    return found


def constant_type(node: onnx.NodeProto) -> str:
    (attribute,) = node.attribute
    if attribute.name == "value":
        return type_name(attribute.t.data_type)
    return {"value_int": "int64", "value_ints": "int64", "value_float": "float"}[attribute.name]


@pytest.mark.parametrize("form", ["written", "rewritten"])
def test_every_node_has_a_cuda_kernel_and_none_computes_a_shape(
    bundle: Bundle, form: str, tmp_path: Path
) -> None:
    if form == "rewritten" and bundle.manifest.precision == "fp16":
        pytest.skip("a CPU's rewriting puts casts around every node, which CUDA's does not")
    assert faults(graphs(bundle, tmp_path)[form], bound_on_host(bundle)) == []


@pytest.mark.parametrize("variant", [VARIANTS[2], {"name": "flan-t5"}], ids=str)
def test_no_graph_approximates_gelu_in_float16(variant: dict[str, Any], tmp_path: Path) -> None:
    """onnxruntime 1.31's CUDA kernel computes pairs, and leaves the last of an odd number out."""
    dpr, generator = save_dpr(tmp_path / "dpr"), save_generator(tmp_path / "generator", **variant)
    export_checkpoint(
        None, tmp_path / "bundle", "fp16", question_encoder=dpr, generator=generator, check=False
    )
    widened: dict[str, list[bool]] = {}
    for path in (tmp_path / "bundle" / "generator").glob("*.onnx"):
        nodes = onnx.load(path, load_external_data=False).graph.node
        casts = {node.output[0] for node in nodes if node.op_type == "Cast" and node.attribute[0].i == 1}
        gelus = [node for node in nodes if node.op_type == "Gelu"]
        approximate = [node for node in gelus if any(a.name == "approximate" for a in node.attribute)]
        widened[path.stem] = [node.input[0] in casts for node in approximate]
    assert widened.pop("cross") == []
    assert all(found and all(found) for found in widened.values()), widened


def test_the_dynamic_decoder_could_not_be_captured(bundle: Bundle) -> None:
    """The check finds what there is to find."""
    dynamic = onnx.load(bundle.file("generator", "decoder.onnx"), load_external_data=False)
    found = faults(dynamic, set())
    assert any("computes a shape" in fault for fault in found)


def test_a_wrong_type_and_a_wrong_place_are_found(bundle: Bundle, tmp_path: Path) -> None:
    model = graphs(bundle, tmp_path)["written"]
    assert any("on the host, which is made on the device" in fault for fault in faults(model, set()))
    next(value for value in model.graph.input if value.name == "token_ids").type.tensor_type.elem_type = 16
    assert any("no CUDA kernel for bfloat16" in fault for fault in faults(model, bound_on_host(bundle)))


@pytest.mark.parametrize("name", ["bart", "t5", "flan-t5", "mbart"])
def test_large_numbers_stay_finite_and_close(tmp_path: Path, name: str) -> None:
    """Feed-forward activations far beyond float16's 65504: what float32 computes, not infinity or NaN.

    T5 and mBART add them to a residual stream that grows from layer to layer.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM

    dpr, source = save_dpr(tmp_path / "dpr"), save_generator(tmp_path / "source", name, encoder_layers=3)
    model = AutoModelForSeq2SeqLM.from_pretrained(source)
    with torch.no_grad():
        for matrix, factor in _feed_forward(model):
            matrix.weight *= factor
    model.save_pretrained(source)
    outputs, rng = {}, np.random.default_rng(0)
    ids = rng.integers(5, 200, (2, 3, 12))
    for precision in ("fp32", "fp16"):
        export_checkpoint(
            None, tmp_path / precision, precision, question_encoder=dpr, generator=source, check=False
        )
        opened = Bundle.open(tmp_path / precision)
        for decoder in ("dynamic", "static"):
            outputs[precision, decoder] = _log_probs(
                GeneratorModel(opened, device="cpu", decoder=decoder), ids
            )
    largest = _largest_activation(model, ids)
    assert largest > 65504
    for (precision, decoder), found in outputs.items():
        assert np.isfinite(found).all(), (precision, decoder)
        assert np.abs(found - outputs["fp32", "dynamic"]).max() < (1e-3 if precision == "fp32" else 0.5)


def _log_probs(model: GeneratorModel, ids: Any) -> Any:
    """log p(y_1 | x, z) of some tokens, [Q, D, 1, P]."""
    q, d, _ = ids.shape
    decoding = model.start(model.encode_documents(ids, np.ones_like(ids)), beams=1, steps=1)
    inputs = StepInputs(
        token_ids=np.full((q, 1), 2),
        beam_indices=np.zeros((q, 1), np.int64),
        log_weights=np.full((q, d, 1), -np.log(d), np.float32),
        beam_scores=np.zeros((q, 1), np.float32),
        num_candidates=4,
        probe_ids=np.arange(5, 60)[None, None].repeat(q, axis=0),
    )
    return model.decode_step(decoding, inputs).probe_log_probs


def _largest_activation(model: Any, ids: Any) -> float:
    import torch

    found = [0.0]
    for matrix, _ in _feed_forward(model):
        matrix.register_forward_hook(lambda *call: found.append(float(call[2].abs().max())))
    with torch.no_grad():
        model.get_encoder()(torch.tensor(ids.reshape(-1, ids.shape[-1])))
    return max(found)


def _feed_forward(model: Any) -> Iterator[tuple[Any, float]]:
    """The matrices of the feed-forward layers, and by how much a test makes each larger."""
    for name, module in model.named_modules():
        if name.endswith((".fc1", ".wi", ".wi_0", ".wi_1")):
            yield module, 50.0 if name.endswith(("_0", "_1")) else 2000.0
        elif name.endswith((".fc2", ".wo")):
            yield module, 50.0


@pytest.mark.parametrize("quantised", ["int8", "int4"])
def test_graphs_that_only_a_cpu_has_are_refused_on_cuda(
    quantised: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dpr, bart = save_dpr(tmp_path / "dpr"), save_bart(tmp_path / "bart")
    export_checkpoint(None, tmp_path / "b", quantised, question_encoder=dpr, generator=bart, check=False)
    opened = Bundle.open(tmp_path / "b")
    assert f"generator/{STEP_GRAPH}" not in opened.manifest.files
    monkeypatch.setattr(
        "ragengine.bundle.device.resolve_device", lambda device: "cpu" if device == "cpu" else "cuda"
    )
    assert graph_device(opened, "cpu") == graph_device(opened, "auto") == "cpu"
    with pytest.raises(DeviceError, match=rf"are {quantised}, which only a CPU computes; export it"):
        graph_device(opened, "cuda")


def test_what_hides_a_token_leaves_room_for_its_score(bundle: Bundle) -> None:
    """A score is added to it in float16, where the sum must not become -inf: of a row that hides all, the
    softmax would be NaN."""
    model = onnx.load(bundle.file("generator", STEP_GRAPH), load_external_data=False)
    constants = {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    hidden = [constants[node.input[2]] for node in model.graph.node if node.op_type == "Where"]
    assert hidden
    for number in hidden:
        with np.errstate(over="raise"):
            assert number + number.dtype.type(-32000) <= number
        assert number < -30000  # no score of a model makes up for it
    assert HIDDEN_HALF in hidden or bundle.manifest.precision == "fp32"
