"""Fixtures of the robustness tests."""

from pathlib import Path

import pytest

from tests.robustness.writers import make_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs and existing targets of every command that writes; tests do not change them."""
    return make_scene(tmp_path_factory.mktemp("scene"))
