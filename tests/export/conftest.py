"""Small checkpoints of parts, for all tests of the export."""

from pathlib import Path

import pytest

from tests.support.models import save_bart, save_dpr


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dpr(tmp_path_factory.mktemp("dpr"))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bart(tmp_path_factory.mktemp("bart"))
