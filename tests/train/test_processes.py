"""Several processes, started by torchrun: together they do what one does, and they end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ragengine.storage.npy import open_vectors
from ragengine_train import TrainResult, train
from ragengine_train.json_files import read_json
from tests.support import training_world

STEPS = 'logging_steps = 1\nlr_scheduler_type = "constant"\n'
# SGD: Adam divides by gradients that are rounding errors, and makes any of them as large as a real one.
SGD = STEPS + 'optim = "sgd"\n'
STAGES = {
    "encoders": "learning_rate = 0.5\nmax_steps = 6\nhard_negatives = 1\nrefresh_negatives = [0, 3]\n"
    "questions_per_passage = 2\nquestion_negatives = true\n",
    "generator": "learning_rate = 0.5\nmax_steps = 3\ngradient_accumulation_steps = 2\n",
    "joint": "learning_rate = 0.1\nmax_steps = 3\ngradient_accumulation_steps = 2\n",
}


def write_config(world: Path, output: str, batch: int, common: str = SGD, **more: str) -> Path:
    """A run over the toy world with ``batch`` examples a process."""
    stages = {
        name: f"per_device_train_batch_size = {batch}\n{common}{body}{more.get(name, '')}"
        for name, body in STAGES.items()
    }
    path = training_world.write_config(world, output=output, **stages)
    path.write_text(path.read_text().replace("dev_questions = 40", "dev_questions = 5"))
    return path


def torchrun(processes: int, config: Path, *options: str) -> subprocess.Popen[str]:
    """`torchrun -m ragengine_train CONFIG` on this machine, with a port of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    return subprocess.Popen(
        [*command, str(processes), "-m", "ragengine_train", str(config), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=config.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(child: subprocess.Popen[str]) -> str:
    """Everything that a run printed; it must end well."""
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0, said[-4000:]
    return said


def losses(output: Path, stage: str) -> list[float]:
    log = read_json(output / stage / "report.json")["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def assert_same_run(one: Path, several: Path, tolerance: float) -> None:
    """Losses, weights, mined negatives and index of two runs."""
    for stage in STAGES:
        np.testing.assert_allclose(losses(several, stage), losses(one, stage), rtol=tolerance, err_msg=stage)
    for name in ("encoders/question_encoder", "generator", "joint/question_encoder", "joint/generator"):
        expected, found = weights(one / name), weights(several / name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=tolerance, atol=tolerance)
    for path in sorted((one / "work/encoders/negatives").iterdir()):
        np.testing.assert_array_equal(np.load(several / path.relative_to(one)), np.load(path))
    vectors = [open_vectors(run / "index/vectors.npy", np.float16, ValueError) for run in (one, several)]
    np.testing.assert_allclose(*(np.asarray(each, np.float32) for each in vectors), rtol=2e-3, atol=1e-4)


@pytest.fixture(scope="module")
def alone(world: Path, one_thread: None) -> TrainResult:
    """One process that reads the whole of each batch."""
    return train(write_config(world, "alone", 8))


def test_two_processes_train_as_one(world: Path, alone: TrainResult) -> None:
    """Half the batch in each: the same losses and weights in all three stages, to 1e-5."""
    said = finished(torchrun(2, write_config(world, "two", 4)))
    assert_same_run(world / "alone", world / "two", 1e-5)
    one, two = (read_json(world / name / "report.json")["dev"] for name in ("alone", "two"))
    assert two == one
    assert said.count("joint\n") == 1, "one process reports"
    assert said.count("hard negatives mined from 120 passages") == 2
    assert not (world / "two/work/index/vectors.npy").exists()
