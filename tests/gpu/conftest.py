"""Tests that need a CUDA device: `pytest -m gpu tests/gpu` (docs/guides/gpu.md)."""

import pytest

from ragengine.runtime.devices import why_no_cuda


@pytest.fixture(scope="session", autouse=True)
def cuda() -> None:
    """Skip, with doctor's reason, where graphs cannot run on CUDA."""
    reason = why_no_cuda()
    if reason is not None:
        pytest.skip(f"no CUDA: {reason}")
