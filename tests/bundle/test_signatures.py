"""The declared inputs and outputs are those of the graphs that are written, in their order."""

from pathlib import Path

import onnx
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import GeneratorSpec, TokenizerSpec
from ragengine.bundle.onnx_reader import FLOAT, FLOAT16
from ragengine.bundle.signatures import (
    MIXTURE_OUTPUTS,
    Signature,
    array_of,
    generator_signatures,
    layer_names,
    shape_inputs,
    sized,
    text_encoder_signature,
)
from ragengine_export import export_checkpoint
from tests.support.models import save_bart, save_dpr

SPEC = GeneratorSpec("generator", 2, 4, 6, 100, 50, 1, 0, TokenizerSpec(1, 50, False))


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("signatures")
    dpr, bart = save_dpr(folder / "dpr"), save_bart(folder / "bart", decoder_layers=2)
    export_checkpoint(None, folder / "b", request.param, question_encoder=dpr, generator=bart, check=False)
    return Bundle.open(folder / "b")


def signature_of(path: Path) -> Signature:
    graph = onnx.load(path, load_external_data=False).graph

    def values(infos: object) -> dict[str, tuple[int, tuple[int | str, ...]]]:
        return {
            info.name: (
                info.type.tensor_type.elem_type,
                tuple(dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim),
            )
            for info in infos
        }

    return Signature(values(graph.input), values(graph.output))


def assert_declared(found: Signature, declared: Signature) -> None:
    for ours, theirs in ((found.inputs, declared.inputs), (found.outputs, declared.outputs)):
        assert list(ours) == list(theirs)  # in this order
        for name, value in theirs.items():
            assert ours[name] == (value.data_type, value.axes)


def test_graphs_have_the_declared_signatures(bundle: Bundle) -> None:
    spec, encoder = bundle.manifest.generator, bundle.manifest.question_encoder
    data_type = FLOAT16 if bundle.manifest.precision == "fp16" else FLOAT
    for name, declared in generator_signatures(spec, data_type).items():
        if f"{spec.path}/{name}" in bundle.manifest.files:
            assert_declared(signature_of(bundle.file(spec.path, name)), declared)
    path = bundle.file(encoder.path, encoder.graph)
    assert_declared(signature_of(path), text_encoder_signature(encoder.dimension))


def test_every_symbol_has_a_size() -> None:
    """Nothing is left to guess for who makes the arrays of a step."""
    sizes = {"Q": 2, "D": 3, "Q*D": 6, "B": 4, "S": 8, "P": 12, "C": 5, "probes": 7}
    static = generator_signatures(SPEC, FLOAT16)["step.onnx"]
    shapes = {name: array_of(value, sizes)[0] for name, value in static.inputs.items()}
    assert shapes["past_key_1"] == (6, 4, 12, 6)
    assert shapes["cross_value_0"] == (6, 4, 8, 6)
    assert shapes["context_bias"] == (6, 1, 4, 8)
    assert shapes["own_past"] == (2, 4, 12)
    for name, axes in shape_inputs(SPEC).items():
        assert shapes[name] == (len(sized(axes, sizes)),)
    with pytest.raises(KeyError):
        sized(("Q", "P+B"), sizes)


def test_layers_are_in_the_order_of_key_and_value() -> None:
    assert layer_names("past", SPEC) == ["past_key_0", "past_value_0", "past_key_1", "past_value_1"]
    for signature in (generator_signatures(SPEC, FLOAT)[name] for name in ("decoder.onnx", "step.onnx")):
        outputs = list(signature.outputs)
        assert outputs[: len(MIXTURE_OUTPUTS)] == list(MIXTURE_OUTPUTS)
        assert outputs[len(MIXTURE_OUTPUTS) :] == layer_names("present", SPEC)
