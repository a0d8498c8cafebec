"""The index follows the passage encoder: when it is made and used, and what a kill costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    DPRContextEncoder,
    DPRQuestionEncoder,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ragengine.bundle.bundle import Bundle
from ragengine.errors import IndexFolderError
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.retriever import Retriever
from ragengine_export import encoders, export_checkpoint
from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainProgress, TrainResult, train
from ragengine_train.checkpoint import load_encoder
from ragengine_train.json_files import read_json, write_json
from ragengine_train.reindexing import Reindexing
from tests.support import training_world
from tests.support.training_world import killed_after

STAGE = (
    "logging_steps = 1\nper_device_train_batch_size = 8\nmax_steps = 22\nlearning_rate = 1e-3\n"
    "save_steps = 6\ntrain_context_encoder = true\nreindex_every = 10\nreindex_delay = 4\n"
    "dpr_weight = 0.5\ndpr_weight_end = 0.0\n"
)


class Steps:
    """A stage of ``total`` steps with a :class:`Reindexing`; its indexes are files that name a step."""

    def __init__(self, folder: Path, every: int, delay: int | None, total: int = 100) -> None:
        self.folder, self.searched, self.said = folder, list[str](), list[str]()
        self.release, self.failure = threading.Event(), list[Exception]()
        self.release.set()
        self.state = TrainerState(max_steps=total)
        self.arguments = TrainingArguments(output_dir=str(folder), report_to="none")
        self.reindexing = Reindexing(
            every,
            delay,
            folder / "indexes",
            save=self.write,
            encode=self.encode,
            swap=lambda index: self.searched.append((index / "step").read_text()),
            progress=lambda report: self.said.append(report.message),
        )

    def write(self, target: Path) -> None:
        (target / "step").write_text(str(self.state.global_step))

    def encode(self, source: Path, index: Path) -> Callable[[Callable[[], None]], None]:
        def make(check: Callable[[], None]) -> None:
            while not self.release.wait(0.01):
                check()
            for failure in self.failure:
                raise failure
            index.mkdir(exist_ok=True)
            (index / "step").write_text((source / "step").read_text())

        return make

    def run(self, last: int, first: int = 1) -> None:
        for step in range(first, last + 1):
            self.state.global_step = step
            self.reindexing.on_step_end(self.arguments, self.state, TrainerControl())

    def save(self) -> None:
        step = self.state.global_step
        content = {"stateful_callbacks": {"Reindexing": self.reindexing.state()}}
        write_json(self.folder / f"checkpoint-{step}" / "trainer_state.json", content)
        self.reindexing.on_save(self.arguments, self.state, TrainerControl())

    def made(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "indexes").iterdir())


def test_used_exactly_after_the_delay(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=10, delay=3)
    steps.run(12)
    assert (steps.searched, steps.reindexing.step) == ([], 0)
    steps.run(13, 13)
    assert (steps.searched, steps.reindexing.step) == (["10"], 10)
    assert steps.said[0].startswith("  13: searching the index of step 10, 3 steps later")
    steps.run(43, 14)
    assert steps.searched == ["10", "20", "30", "40"]


def test_a_delay_of_nothing_and_one_as_long_as_the_interval(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "now", every=5, delay=0)
    steps.run(10)
    assert steps.searched == ["5", "10"]
    steps = Steps(tmp_path / "late", every=5, delay=5)
    steps.run(15)
    assert steps.searched == ["5", "10"]
    with steps.reindexing:
        pass


def test_used_when_it_is_ready_and_one_at_a_time(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=5, delay=None)
    steps.release.clear()
    steps.run(10)
    assert steps.searched == []
    assert steps.said == ["  10: the index of step 5 is still being made"]
    steps.release.set()
    for step in range(11, 1000):
        steps.run(step, step)
        if steps.searched:
            break
        time.sleep(0.01)
    assert steps.searched == ["5"]
    steps.run(steps.state.global_step + 10, steps.state.global_step + 1)
    with steps.reindexing:
        pass


def test_no_index_of_the_last_step(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=10, delay=0, total=20)
    steps.run(20)
    assert steps.searched == ["10"]


def test_an_error_ends_the_training(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=5, delay=2)
    steps.failure.append(IndexFolderError("The disk is full; make room."))
    with pytest.raises(IndexFolderError, match="disk is full"):
        steps.run(7)


def test_the_thread_ends_with_the_training(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=5, delay=None)
    steps.release.clear()
    with steps.reindexing:
        steps.run(5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reindex")]
    assert not (tmp_path / "indexes/000005/index").exists()


def test_indexes_that_no_checkpoint_names_are_removed(tmp_path: Path) -> None:
    steps = Steps(tmp_path, every=5, delay=1)
    steps.run(7)
    steps.save()
    steps.run(12, 8)
    steps.save()
    assert steps.made() == ["000005", "000010"], "the first checkpoint was made with the index of step 5"
    (tmp_path / "checkpoint-7/trainer_state.json").unlink()
    (tmp_path / "checkpoint-7").rmdir()
    steps.run(17, 13)
    steps.save()
    assert steps.made() == ["000010", "000015"]


def test_resuming(tmp_path: Path) -> None:
    """The index of the checkpoint is searched, one in the making is made, later ones are forgotten."""
    before = Steps(tmp_path, every=5, delay=3)
    before.run(11)
    before.save()
    saved = before.reindexing.state()
    before.run(16, 12)
    assert before.made() == ["000005", "000010", "000015"]
    with before.reindexing:
        pass
    after = Steps(tmp_path, every=5, delay=3)
    after.state.global_step, after.state.stateful_callbacks = 11, {"Reindexing": saved}
    after.reindexing.on_train_begin(after.arguments, after.state, TrainerControl())
    assert after.searched == ["5"]
    assert after.made() == ["000005", "000010"]
    after.run(13, 12)
    assert after.searched == ["5", "10"]


@pytest.fixture(scope="module")
def learned(world: Path, unbroken: TrainResult, one_thread: None) -> tuple[TrainResult, list[TrainProgress]]:
    """A joint stage whose passage encoder learns, after the first stages of `world/run`."""
    reports: list[TrainProgress] = []
    return train(config(world, "learned"), progress=reports.append, threads=1), reports


def config(world: Path, output: str, stage: str = STAGE) -> Path:
    path = training_world.write_config(world, output=output, joint=stage)
    encoders = 'context_encoder = "run/encoders/context_encoder"\n'
    text = path.read_text().replace("share_encoders = true\n", encoders)
    text = text.replace("start/question_encoder", "run/encoders/question_encoder")
    path.write_text(text.replace("start/generator", "run/generator"))
    return path


def test_what_a_run_leaves(world: Path, learned: tuple[TrainResult, list[TrainProgress]]) -> None:
    result, reports = learned
    said = [report.message for report in reports if "searching the index" in report.message]
    assert [message.split(";")[0] for message in said] == [
        "  14: searching the index of step 10, 4 steps later"
    ]
    assert result.index == world / "learned/checkpoint_index"
    entries = [entry for entry in result.stages["joint"].log_history if "dpr_loss" in entry]
    assert len(entries) == 22
    for entry in entries:
        total = entry["marginal_loss"] + entry["dpr_weight"] * entry["dpr_loss"]
        assert entry["loss"] == pytest.approx(total, abs=2e-4)
    assert [entries[step]["dpr_weight"] for step in (0, 21)] == [0.5, 0.0]
    assert [entries[step]["index_age"] for step in (0, 12, 13, 21)] == [1, 13, 4, 12]
    agreement = [entry["index_agreement"] for entry in entries]
    assert agreement[0] > 0.9, "the first index is of the encoder as it began"
    assert min(agreement[4:14]) < 1, "it has learned since"
    assert not (world / "learned/work/joint/indexes").exists()
    weights = [
        load_encoder(str(world / folder / "context_encoder"), DPRContextEncoder).state_dict()
        for folder in ("run/encoders", "learned/joint", "learned/checkpoint")
    ]
    name = "ctx_encoder.bert_model.encoder.layer.0.output.dense.weight"
    assert not torch.equal(weights[0][name], weights[1][name])
    assert torch.equal(weights[1][name], weights[2][name])


def test_the_engine_answers_with_the_scores_of_training(
    world: Path, learned: tuple[TrainResult, list[TrainProgress]]
) -> None:
    """p(z | x) of the exported networks over the new index, beside torch's."""
    result, _ = learned
    folder, question = (
        result.checkpoint,
        training_world.WORDINGS[0].format(training_world.names(1, "ton", 1)[0]),
    )
    asking = load_encoder(str(folder / "../joint/question_encoder"), DPRQuestionEncoder).eval()
    reading = load_encoder(str(folder / "context_encoder"), DPRContextEncoder).eval()
    tokenizer = load_tokenizer(str(folder / "context_encoder"))
    with Retriever.load(world / "learned/work/checkpoint/bundle", result.index) as retriever:
        found = retriever.search_vectors(retriever.encode(retriever.tokenize([question])), 5)[0]
    texts = [[one.title for one in found], [one.text for one in found]]
    inputs = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = reading(inputs["input_ids"], inputs["attention_mask"]).pooler_output  # no token types
        asked = asking(**tokenizer([question], return_tensors="pt")).pooler_output[0]
    expected = (vectors @ asked).softmax(0).numpy()
    scores = np.array([one.score for one in found])
    np.testing.assert_allclose(np.exp(scores - np.logaddexp.reduce(scores)), expected, atol=2e-3)


def test_killed_run_goes_on_with_its_index(
    world: Path, learned: tuple[TrainResult, list[TrainProgress]]
) -> None:
    """SIGKILL while an index is made, and after it is searched: every loss is that of the unbroken run."""
    path, work = config(world, "killed-index"), world / "killed-index/work/joint"
    killed_after(path, work / "checkpoint-12/context_encoder/tokenizer.json")
    assert (work / "indexes/000010/context_encoder").exists()
    killed_after(path, work / "checkpoint-18/context_encoder/tokenizer.json")
    assert not (world / "killed-index/joint").exists()
    named = read_json(work / "checkpoint-18/trainer_state.json")["stateful_callbacks"]["Reindexing"]
    assert named["attributes"]["step"] == 10
    made = IndexManifest.read(work / "indexes/000010/index").encoder.fingerprint
    assert made != IndexManifest.read(world / "killed-index/index").encoder.fingerprint
    checkpoint, bundle = work / "checkpoint-18", world / "killed-bundle"
    export_checkpoint(checkpoint, bundle, context_encoder=checkpoint / "context_encoder", check=False)
    exported = Bundle.open(bundle).index_encoder.fingerprint
    assert exported == encoders.load_encoder(str(checkpoint / "context_encoder"), "passage").fingerprint
    assert exported != made, "it has learned for eight steps more"
    result = train(path, threads=1)
    assert result.stages["joint"].losses == learned[0].stages["joint"].losses
    assert result.dev == learned[0].dev
    assert IndexManifest.read(result.index).encoder == IndexManifest.read(learned[0].index).encoder, (
        "the same passage encoder, and an index of it"
    )


@pytest.mark.slow
def test_learning_passages_are_found_more_often(world: Path, unbroken: TrainResult, one_thread: None) -> None:
    """What it adds over frozen passages, whose vectors here tell few of them apart: 6 of 32 numbers are left.

    By DPR's loss on fresh negatives; the figures are in docs/guides/training.md.
    """
    encoder = load_encoder(str(world / "run/encoders/context_encoder"), DPRContextEncoder)
    with torch.no_grad():
        encoder.ctx_encoder.encode_proj.weight[6:] = 0
        encoder.ctx_encoder.encode_proj.bias[6:] = 0
    encoder.save_pretrained(world / "flat")
    load_tokenizer(str(world / "run/encoders/context_encoder")).save_pretrained(world / "flat")
    stage = (
        "logging_steps = 10\nper_device_train_batch_size = 16\nmax_steps = 100\nlearning_rate = 3e-4\n"
        'lr_scheduler_type = "constant_with_warmup"\nwarmup_steps = 5\nretrieval_only = true\n'
    )
    learning = "train_context_encoder = true\nreindex_every = 20\nreindex_delay = 2\n"
    found = {}
    for name, settings in (("frozen", ""), ("learning", learning)):
        path = config(world, f"passages-{name}", stage + settings)
        path.write_text(path.read_text().replace("run/encoders/context_encoder", "flat"))
        dev = train(path, threads=1).dev
        found[name] = dev["checkpoint"]["retrieval"]["passage_recall@5"]
    print(found)
    assert found["learning"] > found["frozen"] + 0.1
