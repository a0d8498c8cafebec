"""What doctor finds out about the machine: the CUDA driver, and CUDA libraries that exclude each other."""

from pathlib import Path
from typing import Any

import pytest

from ragengine.doctor.machine import two_cudas
from tests.support.cuda_driver import make_cuda_driver
from tests.support.doctor import reported


@pytest.mark.parametrize(
    ("libraries", "said"),
    [
        ([], ""),
        (["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9", "libcufft.so.12"], ""),
        (["libcudart.so.12", "libcudart.so.13"], "(libcudart 12 and 13)"),
        (["libcublas.so.12.6.1", "libcublas.so.13", "libcudart.so.13"], "(libcublas 12 and 13)"),
    ],
)
def test_two_versions_of_cuda_in_one_process(libraries: list[str], said: str) -> None:
    sentence = two_cudas(libraries)
    assert bool(sentence) == bool(said)
    assert said in sentence


def read_by(driver: Path) -> dict[str, Any]:
    """What doctor finds with the CUDA driver in a folder."""
    _, found = reported("--device", "cpu", LD_LIBRARY_PATH=driver)
    return dict(found["cuda"])


def test_the_driver_and_its_devices_are_findings(tmp_path: Path) -> None:
    found = read_by(make_cuda_driver(tmp_path, devices=2))
    assert found["driver"] == "13.2"
    assert found["device 0"] == {
        "name": "Card zero", "compute": "9.0", "free": (5 << 32) + 7, "total": 9 << 32
    }  # fmt: skip
    assert (found["device 1"]["name"], found["device 1"]["compute"]) == ("Card one", "9.1")


@pytest.mark.parametrize("broken", [{"init_status": 999}, {"devices": 0}])
def test_a_driver_that_does_not_work_is_a_finding(tmp_path: Path, broken: dict[str, int]) -> None:
    found = read_by(make_cuda_driver(tmp_path, **broken))
    assert found["driver"] is None
    assert "device 0" not in found
