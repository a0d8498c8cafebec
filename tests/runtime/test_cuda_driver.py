"""Devices and their memory, as the CUDA driver describes them; tests/gpu/ calls a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cuda_driver import make_cuda_driver

_READ = """
from ragengine.errors import DeviceError
from ragengine.runtime.cuda_driver import read_driver
try:
    print(read_driver())
except DeviceError as error:
    print(error)
"""


def read_with(driver: Path) -> str:
    """What a process that finds the driver in this folder reads; a process loads a library once."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    command = [sys.executable, "-c", _READ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_devices_are_read_in_their_order(tmp_path: Path) -> None:
    cards = [
        f"CudaDevice(number={number}, name='Card {name}', compute='9.{number}', total_bytes={9 << 32}, "
        f"free_bytes={(5 << 32) + 7 + number}, shared_bytes=49152)"
        for number, name in enumerate(("zero", "one"))
    ]
    driver = make_cuda_driver(tmp_path, devices=2)
    assert read_with(driver) == f"CudaDriver(cuda='13.2', devices=({', '.join(cards)}))"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"init_status": 999},
            "The CUDA driver does not work: cuInit failed with 999 (CUDA_ERROR_UNKNOWN); check nvidia-smi.",
        ),
        (
            {"devices": 0},
            "The CUDA driver has no device; check nvidia-smi and CUDA_VISIBLE_DEVICES.",
        ),
    ],
)
def test_a_driver_that_does_not_work_is_refused(tmp_path: Path, broken: dict[str, int], said: str) -> None:
    assert read_with(make_cuda_driver(tmp_path, **broken)) == said


def test_a_library_that_cannot_be_loaded_is_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("this is no library")
    assert read_with(tmp_path).startswith("The CUDA driver cannot be loaded (")
