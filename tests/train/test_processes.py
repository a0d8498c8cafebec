"""Several processes, started by torchrun: together they do what one does, and they end together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ragengine.errors import OptionsError
from ragengine.storage.npy import open_vectors
from ragengine_train import TrainResult, processes, train
from ragengine_train.json_files import read_json, write_json
from ragengine_train.trainer import resumed_checkpoint
from tests.support import training_world

STEPS = 'logging_steps = 1\nlr_scheduler_type = "constant"\n'
# SGD: Adam divides by gradients that are rounding errors, and makes any of them as large as a real one.
SGD = STEPS + 'optim = "sgd"\n'
STAGES = {
    "encoders": "learning_rate = 0.05\nmax_steps = 6\nhard_negatives = 1\nrefresh_negatives = [0, 3]\n"
    "questions_per_passage = 2\nquestion_negatives = true\n",
    "generator": "learning_rate = 0.5\nmax_steps = 3\ngradient_accumulation_steps = 2\n",
    "joint": "learning_rate = 0.1\nmax_steps = 3\ngradient_accumulation_steps = 2\ndpr_weight = 0.5\n",
}


def write_config(world: Path, output: str, batch: int, common: str = SGD, **more: str) -> Path:
    """A run over the toy world with ``batch`` examples a process."""
    stages = {
        name: f"per_device_train_batch_size = {batch}\n{common}{body}{more.get(name, '')}"
        for name, body in STAGES.items()
    }
    path = training_world.write_config(world, output=output, **stages)
    text = path.read_text().replace("dev_questions = 40", "dev_questions = 5")
    path.write_text(text.replace("start/question_encoder", "spread"))
    return path


def torchrun(count: int, config: Path, *arguments: str, module: bool = True) -> subprocess.Popen[str]:
    """`torchrun -m ragengine_train CONFIG`, or of a script, on this machine with a port of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    run = ["-m", "ragengine_train", str(config)] if module else [str(config), *arguments]
    return started([*command, *run], config.parent)


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(child: subprocess.Popen[str]) -> str:
    """Everything that a run printed; it must end well."""
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0, said[-4000:]
    return said


def losses(output: Path, stage: str, part: str = "loss") -> list[float]:
    log = read_json(output / stage / "report.json")["log_history"]
    return [entry[part] for entry in log if part in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def assert_same_run(one: Path, several: Path, tolerance: float) -> None:
    """Losses, weights, mined negatives and index of two runs."""
    for stage in STAGES:
        np.testing.assert_allclose(losses(several, stage), losses(one, stage), rtol=tolerance, err_msg=stage)
    for part in ("marginal_loss", "dpr_loss"):
        expected_part, found_part = losses(one, "joint", part), losses(several, "joint", part)
        assert len(expected_part) == 3
        np.testing.assert_allclose(found_part, expected_part, rtol=tolerance, err_msg=part)
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
def spread(world: Path) -> None:
    """An encoder in `world/spread`."""
    shutil.copytree(world / "start/question_encoder", world / "spread")
    training_world.spread_encoder(world / "spread")


@pytest.fixture(scope="module")
def alone(world: Path, spread: None, one_thread: None) -> TrainResult:
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


def test_a_stage_goes_on_in_as_many_processes_as_it_was_begun_in(tmp_path: Path) -> None:
    """A checkpoint without the file of each process is incomplete, and removed."""
    assert resumed_checkpoint(tmp_path, "joint") is None
    assert read_json(tmp_path / "processes.json") == {"processes": 1}
    write_json(tmp_path / "processes.json", {"processes": 2})
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        write_json(folder / "trainer_state.json", {})
        (folder / "rng_state_0.pth").touch()
    (tmp_path / "checkpoint-2" / "rng_state_1.pth").touch()
    with pytest.raises(
        OptionsError, match=r"The stage joint was begun in 2 processes, and a step of 1 would .* --from joint"
    ):
        resumed_checkpoint(tmp_path, "joint")
    assert not (tmp_path / "checkpoint-4").exists()
    write_json(tmp_path / "processes.json", {"processes": 1})
    assert resumed_checkpoint(tmp_path, "joint") == str(tmp_path / "checkpoint-2")


def test_what_one_process_shares_with_nobody() -> None:
    vectors = torch.ones(3, 2, requires_grad=True)
    assert processes.gather_rows(vectors, 3) is vectors
    assert processes.padded_share(3) == [0, 1, 2]
    (alone,) = processes.gather_each(vectors)
    torch.testing.assert_close(alone, vectors)
    assert processes.rejoin(processes.share([5, 6, 7])) == [5, 6, 7]
    with pytest.raises(OptionsError, match=r"^no$"):
        processes.first(lambda: refused("no"))
    with pytest.raises(OptionsError, match=r"^no$"):
        processes.together(lambda: refused("no"))


def refused(message: str) -> None:
    raise OptionsError(message)


@pytest.mark.slow
def test_fewer_passages_and_questions_than_processes(world: Path, spread: None, one_thread: None) -> None:
    """One example in each of three processes, whose shares of a batch are filled up."""
    train(write_config(world, "alone3", 3))
    finished(torchrun(3, write_config(world, "three", 1)))
    assert_same_run(world / "alone3", world / "three", 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-2)])
def test_adam_differs_by_rounding_alone(world: Path, spread: None, dtype: str, tolerance: float) -> None:
    """Weights after AdamW in one process and in two, with networks of float64 and of float32.

    Adam divides a gradient by its own size, so that one which is a rounding error moves a weight like others.
    """
    script = world / f"{dtype}.py"
    script.write_text(f"""
import sys, torch
from ragengine_train import processes, train, trainer
begin, run = trainer.StageTrainer.__init__, trainer.StageTrainer.train
def init(self, stage, progress, *args, **kwargs):
    kwargs["model"].to(torch.{dtype})
    begin(self, stage, progress, *args, **kwargs)
def trained(self, *args, **kwargs):
    result = run(self, *args, **kwargs)
    if processes.is_first():
        torch.save(self.model.state_dict(), f"{{self.args.output_dir}}.pt")
    self.model.float()
    return result
trainer.StageTrainer.__init__, trainer.StageTrainer.train = init, trained
train(sys.argv[1])
""")
    found = []
    for count, batch in ((1, 8), (2, 4)):
        common = STEPS + 'optim = "adamw_torch"\n'
        config = write_config(world, f"adam-{dtype}-{count}", batch, common)
        lowered = config.read_text().replace("learning_rate = 0.05", "learning_rate = 1e-3")
        for rate in ("0.5", "0.1"):
            lowered = lowered.replace(f"learning_rate = {rate}\n", "learning_rate = 1e-3\n")
        config.write_text(lowered)
        finished(torchrun(count, script, str(config), module=False))
        found.append({name: torch.load(world / f"adam-{dtype}-{count}/work/{name}.pt") for name in STAGES})
    differences = {
        name: max(float((found[1][name][key] - tensor).abs().max()) for key, tensor in found[0][name].items())
        for name in STAGES
    }
    print(dtype, differences)
    assert max(differences.values()) < tolerance


@pytest.mark.slow
def test_the_passage_encoder_learns_in_two_processes(world: Path, alone: TrainResult) -> None:
    """One of them indexes again, both search the new index from the same step on; vectors are the same."""
    more = "train_context_encoder = true\nreindex_every = 1\nreindex_delay = 1\n"
    one = write_config(world, "learning", 8, joint=more)
    two = write_config(world, "learning2", 4, joint=more)
    train(one)
    said = finished(torchrun(2, two))
    assert said.count("searching the index of step 1, 1 steps later") == 1
    assert_same_run(world / "learning", world / "learning2", 1e-5)
    found = [weights(world / name / "joint/context_encoder") for name in ("learning", "learning2")]
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-5, atol=1e-5)
    changed = weights(world / "learning/encoders/context_encoder")
    assert any((changed[key] != tensor).any() for key, tensor in found[0].items())


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_same_command_goes_on(world: Path, alone: TrainResult) -> None:
    """SIGKILL in one process of two; afterwards the curves and weights are those of one process alone."""
    config = write_config(world, "killed", 4, SGD + "save_steps = 1\n")
    state = world / "killed/work/generator/checkpoint-1/trainer_state.json"
    child = torchrun(2, config)
    while not state.exists() and child.poll() is None:
        time.sleep(0.005)
    victim = workers_of(child.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    said, _ = child.communicate(timeout=120)
    assert child.returncode != 0
    assert not (world / "killed/generator").exists(), "the stage was over before the process was killed"
    assert "Signal 9" in said
    assert "ragengine: " not in said, said
    assert workers_of(child.pid) == []
    with pytest.raises(OptionsError, match="The stage generator was begun in 2 processes"):
        train(config)
    finished(torchrun(2, config))
    assert_same_run(world / "alone", world / "killed", 1e-5)


def workers_of(pid: int) -> list[int]:
    """The running children of a process."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in children.split()]


@pytest.mark.slow
def test_an_error_of_one_process_is_one_message(world: Path, tmp_path: Path, spread: None) -> None:
    """Found by both, by the first, and by the second alone where the others wait for it."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("output = 3")
    assert errors(torchrun(2, wrong)) == [f"{wrong} cannot be used: "]
    config = write_config(world, "one-error", 4)
    script = tmp_path / "damaged.py"
    script.write_text(f"""
import sys
from ragengine.cli.main import main
from ragengine.errors import IndexFolderError
from ragengine_train import pipeline, processes
real = pipeline.RagengineIndex
def opened(index, n_docs):
    if processes.rank() == 1:
        raise IndexFolderError("The index is damaged; build it again.")
    return real(index, n_docs)
pipeline.RagengineIndex = opened
sys.argv[1:] = ["train", {str(config)!r}]
main()
""")
    child = torchrun(2, script, module=False)
    assert errors(child) == ["process 1 of 2: The index is damaged; build it again."]


def errors(child: subprocess.Popen[str]) -> list[str]:
    """The messages of a run that fails, as far as they do not quote more than one error."""
    said, _ = child.communicate(timeout=300)
    assert child.returncode != 0, said
    lines = [line.removeprefix("ragengine: ") for line in said.splitlines() if line.startswith("ragengine: ")]
    return [
        line.split("cannot be used: ")[0] + "cannot be used: " * ("cannot be used: " in line)
        for line in lines
    ]


@pytest.mark.slow
def test_accelerate_launch(world: Path, alone: TrainResult) -> None:
    """`--multi_gpu` is its word for processes of one machine, GPUs or not."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", "ragengine_train"]
    child = started([*command, str(write_config(world, "accelerate", 4))], world)
    finished(child)
    assert_same_run(world / "alone", world / "accelerate", 1e-5)
