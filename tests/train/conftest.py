"""The toy world on disk, and one whole run over it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ragengine_train import TrainProgress, TrainResult, train
from ragengine_train.data import TrainingPassages
from tests.support import training_world
from tests.support.training_world import STAGES


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
    training_world.write_data(folder / "data")
    training_world.write_models(folder / "start")
    return folder


@pytest.fixture(scope="session")
def reported_run(world: Path, one_thread: None) -> tuple[TrainResult, list[TrainProgress]]:
    """A run that nothing stopped, in `world/run`, and what it reported."""
    reports: list[TrainProgress] = []
    return train(training_world.write_config(world, **STAGES), progress=reports.append), reports


@pytest.fixture(scope="session")
def unbroken(reported_run: tuple[TrainResult, list[TrainProgress]]) -> TrainResult:
    """The result of a run that nothing stopped, in `world/run`."""
    return reported_run[0]


@pytest.fixture
def corpus(tmp_path: Path) -> TrainingPassages:
    """Four passages, of which two have equal text."""
    rows = [("a", "text a", "A"), ("b", "text b", "B"), ("a2", "text a", "A"), ("c", "text c", "C")]
    path = tmp_path / "passages.tsv"
    path.write_text("id\ttext\ttitle\n" + "".join("\t".join(row) + "\n" for row in rows))
    return TrainingPassages.read(path)
