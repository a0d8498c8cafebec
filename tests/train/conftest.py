"""The toy world on disk, and one whole run over it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ragengine_train import read_config, train
from tests.train import toy

COMMON = 'logging_steps = 5\nlr_scheduler_type = "constant_with_warmup"\nwarmup_steps = 5\nsave_steps = 10\n'
STAGES = {
    "encoders": COMMON
    + "per_device_train_batch_size = 24\nmax_steps = 30\nlearning_rate = 2e-3\n"
    + "hard_negatives = 1\nrefresh_negatives = [20]\nquestions_per_passage = 2\n"
    + "sample = {even = 0.9, odd = 0.1}\n",
    "generator": COMMON + "per_device_train_batch_size = 16\nmax_steps = 180\nlearning_rate = 3e-3\n",
    "joint": COMMON + "per_device_train_batch_size = 8\ngradient_accumulation_steps = 2\nmax_steps = 60\n"
    "learning_rate = 3e-4\n",
}


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Sums of several threads come in any order; a loss curve is compared to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/` and `start/`."""
    folder = tmp_path_factory.mktemp("world")
    toy.write_data(folder / "data")
    toy.write_models(folder / "start")
    return folder


@pytest.fixture(scope="session")
def unbroken(world: Path, one_thread: None) -> dict[str, Any]:
    """The report of a run that nothing stopped, in `world/run`."""
    return train(read_config(toy.write_config(world, **STAGES)))
