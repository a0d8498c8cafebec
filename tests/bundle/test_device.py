"""The precision of a bundle decides whether its graphs can run on CUDA."""

import dataclasses
from typing import Any

import pytest

from ragengine import Bundle
from ragengine.bundle import device
from ragengine.bundle.device import graph_device
from ragengine.errors import DeviceError
from tests.support.paths import GOLDEN


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA works here, as far as the device is asked."""
    monkeypatch.setattr(device, "resolve_device", lambda name: "cpu" if name == "cpu" else "cuda")


def bundle_of(precision: Any) -> Bundle:
    bundle = Bundle.open(GOLDEN / "bundle_v4")
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, precision=precision))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_graphs_run_where_they_are_asked_to(with_cuda: None, precision: str) -> None:
    bundle = bundle_of(precision)
    assert [graph_device(bundle, name) for name in ("cpu", "auto", "cuda")] == ["cpu", "cuda", "cuda"]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integer_graphs_run_on_the_cpu_alone(
    with_cuda: None, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(precision)
    assert graph_device(bundle, "cpu") == "cpu"
    with caplog.at_level("INFO", "ragengine"):
        assert graph_device(bundle, "auto") == "cpu"
    assert f"are {precision}, which only a CPU computes" in caplog.text
    with pytest.raises(DeviceError, match=rf"are {precision}, which only a CPU computes; export it with"):
        graph_device(bundle, "cuda")
