"""Fixtures of the robustness tests."""

import sys
from pathlib import Path

import pytest

from tests.robustness.file_calls import COMPILER, compiled
from tests.robustness.writers import make_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs and existing targets of every command that writes; tests do not change them."""
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def file_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records and fails calls; made here, where there is a C compiler."""
    if sys.platform != "linux" or COMPILER is None:
        pytest.skip(
            "calls of the C library are recorded and failed by a library made here: Linux and a C compiler"
        )
    return compiled(tmp_path_factory.mktemp("file_calls"))
