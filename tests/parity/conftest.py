"""The checkpoints of the parity tests."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from transformers.utils import logging

from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair

SEEDS = range(44)
_NO_PARAMETERS = SimpleNamespace(params={})


@pytest.fixture(scope="session", params=SEEDS, ids="seed{}".format)
def parity_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One checkpoint for all its requests, of both kinds; pytest runs those one after the other."""
    return build_pair(random_spec(request.param), tmp_path_factory.mktemp(f"seed{request.param}"))


@pytest.fixture(autouse=True, scope="session")
def _quiet_and_single_threaded() -> Iterator[None]:
    """Small models run faster on one thread, and more threads would only fight the engine's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run all tests of a checkpoint, whatever their file."""
    for item in items:
        seed = getattr(item, "callspec", _NO_PARAMETERS).params.get("parity_pair")
        if seed is not None:
            item.add_marker(pytest.mark.xdist_group(f"parity-{seed}"))
