"""Checkpoints that training writes are exported as they are, whatever encoder they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import BertModel, MPNetModel, RobertaModel, XLMRobertaModel

from ragengine import RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.cli.main import cli
from ragengine.errors import ExportError
from ragengine.retrieval.retriever import Retriever
from ragengine_export import export_checkpoint
from ragengine_export.tokenization import load_tokenizer
from ragengine_train import consolidate, train
from tests.support import training_world
from tests.train.test_families import ENCODERS, start

POOLED = {"bert": BertModel, "roberta": RobertaModel, "xlm-roberta": XLMRobertaModel, "mpnet": MPNetModel}
QUESTION = "Who is the mayor of Lagiton?"
STAGE = "logging_steps = 1\nmax_steps = 4\nlearning_rate = 1e-3\nper_device_train_batch_size = 4\n"
SLOW = pytest.mark.slow
KEPT = 'eval_strategy = "steps"\neval_steps = 2\nsave_steps = 2\n'


def write_bare(name: str, folder: Path, world: Path) -> Any:
    """A random network without a pooler, as a checkpoint of masked language modelling has it."""
    tokenizer = load_tokenizer(str(world / "start" / "question_encoder"))
    torch.manual_seed(0)
    config, sizes, _ = ENCODERS[name]
    network = POOLED[name](config(**sizes, vocab_size=len(tokenizer)), add_pooling_layer=False)
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return network


def mean_of_states(network: Any, folder: Path) -> np.ndarray[Any, Any]:
    """The vector of the question by transformers."""
    inputs = load_tokenizer(str(folder))(QUESTION, return_tensors="pt")
    with torch.no_grad():
        states = network.eval()(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    return states.mean(1).numpy()


def vector_of(bundle: Path, index: Path | None = None) -> np.ndarray[Any, Any]:
    with Retriever.load(bundle, index, threads=1) as retriever:
        return retriever.encode(retriever.tokenize([QUESTION]))


@pytest.mark.parametrize(
    "name",
    ["bert", pytest.param("roberta", marks=SLOW), pytest.param("xlm-roberta", marks=SLOW), "mpnet"],
)
def test_a_network_without_a_pooler_is_consolidated_and_exported(
    name: str, world: Path, tmp_path: Path
) -> None:
    network = write_bare(name, tmp_path / "encoder", world)
    made = consolidate(
        tmp_path / "encoder", world / "start/generator", tmp_path / "rag",
        context_encoder=tmp_path / "encoder", pooling="mean", max_combined_length=60,
    )  # fmt: skip
    report = export_checkpoint(made, tmp_path / "bundle")
    assert max(check.difference for check in report.checks) < 2e-4
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.passage_encoder is not None
    expected = mean_of_states(network, tmp_path / "encoder")
    np.testing.assert_allclose(vector_of(tmp_path / "bundle"), expected, atol=1e-5)


def test_a_pooling_that_needs_the_pooler_is_refused(world: Path, tmp_path: Path) -> None:
    write_bare("bert", tmp_path / "encoder", world)
    with pytest.raises(ExportError, match="has no weights of a pooler"):
        consolidate(
            tmp_path / "encoder", world / "start/generator", tmp_path / "rag", pooling="pooler",
            max_combined_length=60,
        )  # fmt: skip


def assert_all_are_evaluated(folder: Path, learns: bool) -> None:
    """One command over the output of the training; the second time nothing is exported, built or answered."""
    run, kept = folder / "run", folder / "kept"
    lines = (folder / "data" / "dev.jsonl").read_text("utf-8").splitlines()
    (folder / "q.jsonl").write_text("\n".join(lines[:3]))
    command = ["eval", str(folder / "q.jsonl"), "--all-checkpoints", str(run), "--predictions", str(kept)]
    done = CliRunner().invoke(cli, [*command, "--json", "--resamples", "0"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    found = [Path(one["measured"]["bundle"]).relative_to(run) for one in result["checkpoints"]]
    names = [path.parts[1].rsplit("-", 1)[0] for path in found]
    assert names == ["checkpoint-2", "checkpoint-4", "index"], "the result is the last checkpoint"
    indexes = [Path(one["measured"]["index"]) for one in result["checkpoints"]]
    assert indexes[2] == run / "index"
    assert indexes[1] == run / ("checkpoint_index" if learns else "index")
    assert indexes[0] == (run / found[0].parent / "index" if learns else run / "index")
    assert Path(result["best"]["bundle"]).is_dir()
    times = {path: path.stat().st_mtime_ns for path in [*run.rglob("*"), *kept.rglob("*")] if path.is_file()}
    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    best = result["best"]
    assert f"serve it: ragengine serve {best['bundle']} {best['index']}\n" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with RagEngine.load(best["bundle"], index=best["index"], threads=1) as engine:
        assert len(engine.generate(QUESTION).documents) == 5


@pytest.mark.parametrize(
    ("name", "learns"),
    [
        ("dpr", False),
        pytest.param("dpr", True, marks=SLOW),
        pytest.param("bert", False, marks=SLOW),
        ("bert", True),
    ],
)
def test_checkpoints_of_joint_tuning_are_the_model(
    name: str, learns: bool, world: Path, one_thread: None, tmp_path: Path
) -> None:
    """The last one is exported to the bundle that the run itself has made, byte for byte."""
    folder = start(world, tmp_path)
    if name == "dpr":
        folder.rmdir()
        folder.symlink_to(world / "start" / "question_encoder")
    else:
        write_bare(name, folder, world)
    (tmp_path / "start" / "generator").symlink_to(world / "start" / "generator")
    learning = "train_context_encoder = true\ndpr_weight = 1.0\n" if learns else ""
    config = training_world.write_config(tmp_path, encoders=STAGE, joint=STAGE + KEPT + learning)
    text = config.read_text().replace("dev_questions = 40", "dev_questions = 4")
    config.write_text(text if name == "dpr" else text.replace("[model]", '[model]\npooling = "mean"'))
    result = train(config, threads=1)
    work = tmp_path / "run" / "work"
    bundles = {}
    for step in (2, 4):
        checkpoint = work / "joint" / f"checkpoint-{step}"
        export_checkpoint(checkpoint, tmp_path / f"bundle-{step}", check=False)
        bundles[step] = Bundle.open(tmp_path / f"bundle-{step}")
    last = Bundle.open(work / "checkpoint" / "bundle")
    assert bundles[4].fingerprint == last.fingerprint != bundles[2].fingerprint
    assert (bundles[2].index_encoder.fingerprint == last.index_encoder.fingerprint) == (not learns)
    assert_all_are_evaluated(tmp_path, learns)
    if name == "bert":
        folder = tmp_path / "run" / "joint" / "question_encoder"
        network = BertModel.from_pretrained(folder, add_pooling_layer=False)
        found = vector_of(tmp_path / "bundle-4", result.index)
        np.testing.assert_allclose(found, mean_of_states(network, folder), atol=1e-5)
