"""Which device graphs run on, and why not on another."""

import onnx
import onnxruntime as ort
import pytest

from ragengine.errors import DeviceError
from ragengine.runtime import devices
from ragengine.runtime.devices import installed, resolve_device
from ragengine.runtime.probe_graph import PROBE_GRAPH, make_probe_graph

no_cuda = pytest.mark.skipif(
    devices.CUDA_PROVIDER in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)


def test_the_probe_graph_is_what_its_script_makes() -> None:
    model = onnx.load(str(PROBE_GRAPH))
    assert model == onnx.load_model_from_string(make_probe_graph())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Abs"]


def test_the_cpu_computes_the_probe_graph() -> None:
    assert devices.provider_error("CPUExecutionProvider") is None


def test_a_provider_that_leaves_its_node_to_another_does_not_work() -> None:
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("every provider here has kernels")
    error = devices.provider_error("AzureExecutionProvider")
    assert error == "it leaves the node to CPUExecutionProvider"


def test_libraries_are_those_of_the_cuda_that_onnxruntime_was_built_for() -> None:
    assert {"libcudart.so.13", "libcufft.so.12", "libcudnn.so.9"} <= set(devices.cuda_libraries("13.0"))
    assert {"libcudart.so.12", "libcufft.so.11", "libcudnn.so.9"} <= set(devices.cuda_libraries("12.8"))


@no_cuda
def test_auto_logs_once_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    devices._automatic_device.cache_clear()
    with caplog.at_level("INFO", "ragengine"):
        assert resolve_device("auto") == resolve_device("auto") == "cpu"
    assert [record.getMessage() for record in caplog.records] == [
        f"device auto is cpu: {devices.why_no_cuda()}."
    ]


@no_cuda
def test_cuda_is_refused_with_reason_and_remedy() -> None:
    with pytest.raises(DeviceError, match=r'^device is cuda, but .* install .*, or use device="cpu"\.$'):
        resolve_device("cuda")


def test_another_device_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"^device is 'tpu'; it must be auto, cpu or cuda\.$"):
        resolve_device("tpu")


def test_only_installed_packages_have_versions() -> None:
    assert installed(["numpy", "no-such-package"]).keys() == {"numpy"}
