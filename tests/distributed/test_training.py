"""Ray Train's workers train as processes of torchrun do, and go on when one is killed (`make test-ray`)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ragengine.errors import OptionsError, RagEngineError
from ragengine_train import train as train_alone
from ragengine_train.json_files import read_json
from tests.support import training_world

pytestmark = pytest.mark.ray

COMMON = 'logging_steps = 1\nlr_scheduler_type = "constant"\noptim = "sgd"\nsave_steps = 2\n'
STAGES = {
    "encoders": "learning_rate = 0.05\nmax_steps = 6\nhard_negatives = 1\nrefresh_negatives = [0, 3]\n",
    # At a rate of 0.5 rounding errors grow to 2e-5 in 40 steps, killed or not.
    "generator": "learning_rate = 0.1\nmax_steps = 40\n",
    "joint": "learning_rate = 0.1\nmax_steps = 4\n",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/`, `start/` and the run of one process, `alone`."""
    folder = tmp_path_factory.mktemp("world")
    training_world.write_data(folder / "data")
    training_world.write_models(folder / "start")
    training_world.spread_encoder(folder / "start/question_encoder")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_alone(write_config(folder, "alone", 8))
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


def write_config(world: Path, output: str, batch: int, **more: str) -> Path:
    stages = {
        name: f"per_device_train_batch_size = {batch}\n{COMMON}{body}{more.get(name, '')}"
        for name, body in STAGES.items()
    }
    path = training_world.write_config(world, output=output, **stages)
    path.write_text(path.read_text().replace("dev_questions = 40", "dev_questions = 5"))
    return path


def losses(output: Path, stage: str) -> list[float]:
    log = read_json(output / stage / "report.json")["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def assert_same(world: Path, name: str) -> None:
    """The losses and weights of a run are those of one process."""
    for stage in STAGES:
        np.testing.assert_allclose(losses(world / name, stage), losses(world / "alone", stage), rtol=1e-5)
    for part in ("encoders/question_encoder", "generator", "joint/generator"):
        one, two = (load_file(world / run / part / "model.safetensors") for run in ("alone", name))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-5, atol=1e-5)


def test_two_workers_of_which_one_is_killed(world: Path, cluster: None) -> None:
    """SIGKILL within the generator stage: all start again, and the whole is what one process makes."""
    from ragengine_ray import train

    config, killed = write_config(world, "killed", 4), threading.Event()
    checkpoint = world / "killed/work/generator/checkpoint-4/trainer_state.json"

    def kill() -> None:
        while not killed.is_set() and not (world / "killed/generator").exists():
            if checkpoint.exists() and (pids := worker_pids()):
                os.kill(pids[-1], signal.SIGKILL)
                killed.set()
            time.sleep(0.01)

    watcher = threading.Thread(target=kill)
    watcher.start()
    result = train(config, workers=2, max_failures=2, threads=1, retrieval_actors=1)
    watcher.join()
    assert killed.is_set(), "the stage was over before a worker was killed"
    assert result.stages["generator"].losses[-1][0] == 40
    assert_same(world, "killed")


def test_retrieval_by_shard_actors(world: Path, cluster: None) -> None:
    """Each actor holds a third of the index: losses and weights are those of the mapped index."""
    from ragengine_ray import train

    train(write_config(world, "sharded", 8), workers=1, threads=1, retrieval_shards=3)
    assert_same(world, "sharded")
    assert list((world / "sharded").rglob("*.shards-*")), "no index was divided"


def worker_pids() -> list[int]:
    """The processes of Ray Train's workers."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"ray::RayTrainWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # it has ended
    return sorted(found)


def test_an_error_in_a_worker_is_that_of_the_call(world: Path, cluster: None) -> None:
    """And workers are not started again for it."""
    from ragengine_ray import train

    config = write_config(world, "wrong", 4)
    config.write_text(config.read_text().replace("max_passage_length = 32", "max_passage_length = 41"))
    with pytest.raises(RagEngineError, match=r"max_passage_length is 41, .* has 40 positions"):
        train(config, workers=2, threads=1)
    assert not (world / "wrong/encoders").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers is 0; it must be a whole number of at least 1"),
        ({"max_failures": -1}, "max_failures is -1; it must be a whole number of at least 0"),
        (
            {"retrieval_actors": 1, "retrieval_shards": 2},
            "retrieval_actors is 1 and retrieval_shards is 2; give one",
        ),
        ({"retrieval_actors": 1.5}, "retrieval_actors is 1.5; it must be a whole number of at least 0"),
    ],
)
def test_wrong_options(world: Path, options: dict[str, Any], said: str) -> None:
    from ragengine_ray import train

    with pytest.raises(OptionsError, match=said):
        train(write_config(world, "options", 4), **options)
