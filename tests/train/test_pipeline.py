"""Whole runs: what is learned, what is written, and what a kill costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, RagTokenForGeneration, RagTokenizer

from ragengine import RagEngine
from ragengine.errors import OptionsError, RagEngineError
from ragengine_train import TrainProgress, TrainResult, read_config, train
from ragengine_train.json_files import read_json
from tests.support import training_world
from tests.support.training_world import COMMON, STAGES, killed_after


def curve(result: TrainResult, stage: str) -> list[float]:
    """The losses of a stage."""
    return [loss for _, loss in result.stages[stage].losses]


@pytest.mark.parametrize("stage", ["encoders", "generator", "joint"])
def test_loss_falls(unbroken: TrainResult, stage: str) -> None:
    values = curve(unbroken, stage)
    assert values[-1] < 0.7 * values[0]


def test_marginal_likelihood_alone_improves_retrieval(unbroken: TrainResult) -> None:
    """Joint tuning sees questions and answers, no passage; what it finds is more often the right one."""
    before, after = (unbroken.dev[name]["retrieval"] for name in ("index", "checkpoint"))
    assert after["passage_recall@5"] > before["passage_recall@5"] + 0.1
    before, after = (unbroken.dev[name]["answers"] for name in ("index", "checkpoint"))
    assert after["exact_match"] > before["exact_match"]


def test_generator_reads_gold_passages(unbroken: TrainResult) -> None:
    assert unbroken.dev["generator"]["exact_match_gold_passage"] > 0.8


def test_checkpoint_is_an_ordinary_one(world: Path, unbroken: TrainResult) -> None:
    folder = world / "run" / "checkpoint"
    model, info = RagTokenForGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.generation_config.num_beams == 2
    assert model.config.use_cache
    assert model.config.generator.use_cache
    tokenizer = RagTokenizer.from_pretrained(folder)
    assert tokenizer.question_encoder.model_max_length == 32, "where the training cuts"
    assert AutoTokenizer.from_pretrained(folder / "context_encoder").model_max_length == 32
    assert AutoConfig.from_pretrained(folder / "context_encoder").architectures == ["DPRContextEncoder"]
    assert str(world) not in (folder / "config.json").read_text()


def test_run_leaves_a_report_and_curves(world: Path, unbroken: TrainResult) -> None:
    report = read_json(unbroken.report)
    assert unbroken.report == world / "run" / "report.json"
    assert (report["seconds"], report["dev"]) == (unbroken.seconds, unbroken.dev)
    assert list(report["stages"]) == ["encoders", "generator", "joint", "index", "checkpoint"]
    assert report["stages"]["joint"]["log_history"] == unbroken.stages["joint"].log_history
    assert report["seed"] == 5
    assert (world / "run" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    with RagEngine.load(world / "run/work/checkpoint/bundle", index=world / "run/index", threads=1) as engine:
        assert engine.generate(f"Who is the mayor of {training_world.names(1, 'ton', 1)[0]}?").documents


def test_finished_run_is_not_run_again(world: Path, unbroken: TrainResult) -> None:
    results = [world / "run" / name for name in ("encoders", "generator", "index", "joint", "checkpoint")]
    made = [result.stat().st_mtime_ns for result in results]
    assert train(read_config(world / "run.toml")) == unbroken
    assert [result.stat().st_mtime_ns for result in results] == made


def test_other_generation_settings_change_the_checkpoint_alone(world: Path, unbroken: TrainResult) -> None:
    made = (world / "run/joint").stat().st_mtime_ns
    text = (world / "run.toml").read_text()
    (world / "other.toml").write_text(text.replace("num_beams = 2", "num_beams = 3"))
    train(read_config(world / "other.toml"))
    config = read_json(world / "run/checkpoint/generation_config.json")
    assert config["num_beams"] == 3
    assert (world / "run/joint").stat().st_mtime_ns == made
    assert train(read_config(world / "run.toml")) == unbroken


def test_other_settings_are_not_mixed_in(world: Path, unbroken: TrainResult) -> None:
    text = (world / "run.toml").read_text().replace("learning_rate = 2e-3", "learning_rate = 1e-3")
    (world / "other.toml").write_text(text)
    with pytest.raises(
        OptionsError, match=r"encoders\.arguments\.learning_rate was 0\.002, is 0\.001.*--from"
    ):
        train(read_config(world / "other.toml"))
    with pytest.raises(OptionsError, match=r"learning_rate was 0\.002"):
        train(read_config(world / "other.toml"), start="joint")
    assert (world / "run/joint").exists(), "what is refused removes nothing"


def test_other_contents_of_a_file_are_noticed(world: Path, unbroken: TrainResult) -> None:
    path = world / "data/train.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[0])
    try:
        with pytest.raises(OptionsError, match=r"run/encoders was made .*train\.jsonl has changed.*--from"):
            train(read_config(world / "run.toml"))
    finally:
        path.write_bytes(content)
    assert train(read_config(world / "run.toml")) == unbroken


def test_a_stage_that_is_taken_away_is_no_part_of_the_checkpoint(world: Path, unbroken: TrainResult) -> None:
    without = {name: body for name, body in STAGES.items() if name != "joint"}
    path = training_world.write_config(world, output="run", **without).rename(world / "less.toml")
    training_world.write_config(world, output="run", **STAGES)
    report = train(read_config(path))
    assert report.dev["checkpoint"] == report.dev["index"] == unbroken.dev["index"]
    weights = [load_file(world / "run" / name / "model.safetensors") for name in ("checkpoint", "generator")]
    name = "model.decoder.layers.0.fc1.weight"
    assert (weights[0][f"rag.generator.{name}"] == weights[1][name]).all()
    assert train(read_config(world / "run.toml")) == unbroken


def test_results_of_other_stages_are_not_mixed_in(world: Path, unbroken: TrainResult) -> None:
    without = {name: body for name, body in STAGES.items() if name != "encoders"}
    path = training_world.write_config(world, output="run", **without).rename(world / "less.toml")
    training_world.write_config(world, output="run", **STAGES)
    with pytest.raises(OptionsError, match=r"made_of\.context_encoder was 'encoders', is 'start'"):
        train(read_config(path))
    assert (world / "run/joint").exists()


def test_other_dev_questions_are_measured_and_nothing_else_is_made(
    world: Path, unbroken: TrainResult
) -> None:
    path, made = world / "data/dev.jsonl", (world / "run/index").stat().st_mtime_ns
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:10]))
    try:
        report = train(read_config(world / "run.toml"))
    finally:
        path.write_bytes(content)
    assert [report.dev[name]["retrieval"]["n"] for name in ("index", "checkpoint")] == [10, 10]
    assert (world / "run/index").stat().st_mtime_ns == made
    assert train(read_config(world / "run.toml")) == unbroken


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("start/generator", "nowhere/generator", "nowhere/generator is not a folder or hub name"),
        ("start/generator", "start/question_encoder", "is a dpr model; supported are bart, t5, "),
        (
            "max_passage_length = 32",
            "max_passage_length = 41",
            "max_passage_length is 41, .* has 40 positions",
        ),
        ("n_docs = 5", "n_docs = 121", "n_docs is 121, and there are 120 passages"),
        ("dev.jsonl", "wrong.jsonl", r"wrong\.jsonl line 1 is not"),
        ("odd = 0.1", "blue = 0.1", "sample names the groups blue"),
        ("max_steps = 60\n", "max_steps = 60\nfreeze = ['nothing.*']\n", r"freeze has 'nothing\.\*'"),
        (
            "max_steps = 60\n",
            "max_steps = 60\nfreeze = ['ctx_encoder.*']\n",
            r"freeze has 'ctx_encoder\.\*', which matches no parameter",
        ),
        (
            "max_steps = 60\n",
            "max_steps = 60\ntrain = 'data/plain.jsonl'\ndpr_weight = 0.5\n",
            r"joint\.dpr_weight: no line of its questions has a passage_id",
        ),
        (
            "max_steps = 60\n",
            "max_steps = 60\ntrain = 'data/plain.jsonl'\nretrieval_only = true\n",
            r"plain\.jsonl: no line has a passage_id",
        ),
    ],
)
def test_errors_are_found_before_the_first_stage(world: Path, old: str, new: str, said: str) -> None:
    (world / "data/wrong.jsonl").write_text("nonsense\n")
    (world / "data/plain.jsonl").write_text('{"question": "q", "answers": ["a"]}\n')
    config = training_world.write_config(world, output="faulty", **STAGES)
    text = config.read_text().replace('type = "token"', 'type = "token"\nn_docs = 5')
    config.write_text(text.replace(old, new))
    with pytest.raises(RagEngineError, match=said):
        train(read_config(config))
    assert not (world / "faulty").exists(), "an empty folder was to go"


def test_a_loss_that_is_no_number_ends_the_run(world: Path, one_thread: None) -> None:
    """transformers' Trainer would log the mean of the losses before it and go on."""
    stage = STAGES["generator"].replace("learning_rate = 3e-3", "learning_rate = 1e30\nmax_grad_norm = 0.0")
    with pytest.raises(
        OptionsError, match=r"The loss is (nan|inf) at step \d+; lower learning_rate, now 1e\+30"
    ):
        train(read_config(training_world.write_config(world, output="diverged", generator=stage)))
    assert not (world / "diverged/generator").exists()


def test_sequence_model_from_trained_parts(world: Path, unbroken: TrainResult) -> None:
    """Only [joint], on another objective, from parts that are there."""
    joint = COMMON + "per_device_train_batch_size = 8\nmax_steps = 10\nfreeze = ['question_encoder.*']\n"
    path = training_world.write_config(world, kind="sequence", output="sequence", joint=joint)
    parts = {"start/question_encoder": "run/encoders/question_encoder", "start/generator": "run/generator"}
    text = path.read_text()
    for old, new in parts.items():
        text = text.replace(old, new)
    path.write_text(text)
    report = train(read_config(path))
    assert len(curve(report, "joint")) == 2
    assert AutoConfig.from_pretrained(world / "sequence/checkpoint").architectures == [
        "RagSequenceForGeneration"
    ]
    before, after = (report.dev[name]["retrieval"] for name in ("index", "checkpoint"))
    assert before == after, "the question encoder was to stay as it is"


def test_killed_run_goes_on_to_the_same_curves(world: Path, unbroken: TrainResult) -> None:
    """SIGKILL in each stage; every loss of the four runs together is that of the unbroken one."""
    config, output = training_world.write_config(world, output="killed", **STAGES), world / "killed"
    killed_after(config, output / "work/encoders/checkpoint-20/trainer_state.json")
    assert not (output / "encoders").exists()
    killed_after(config, output / "work/generator/checkpoint-20/trainer_state.json")
    assert not (output / "generator").exists()
    killed_after(config, output / "work/joint/checkpoint-20/trainer_state.json")
    assert not (output / "joint").exists()
    report = train(read_config(config))
    for stage in STAGES:
        assert curve(report, stage) == curve(unbroken, stage), stage
    for name, figures in unbroken.dev.items():
        assert report.dev[name] == figures


def test_progress_is_reported(reported_run: tuple[TrainResult, list[TrainProgress]]) -> None:
    """Every step that is logged, with its loss, and every stage by name."""
    result, reports = reported_run
    assert list(dict.fromkeys(report.stage for report in reports)) == [
        "encoders",
        "generator",
        "index",
        "joint",
        "checkpoint",
    ]
    for name, stage in result.stages.items():
        steps = [(report.step, report.loss) for report in reports if report.stage == name and report.step]
        assert steps == stage.losses
    assert {report.total for report in reports if report.stage == "joint"} == {None, 60}
    assert "  20: hard negatives mined from 120 passages" in [report.message for report in reports]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fresh": True, "start": "joint"}, "fresh makes everything again and start='joint' does not"),
        ({"start": "decoder"}, "start is 'decoder'; it must be one of encoders, generator, index, joint"),
        ({"threads": 0}, "threads is 0; it must be at least 1"),
    ],
)
def test_wrong_options(world: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        train(training_world.write_config(world, output="options", joint="max_steps = 1"), **options)
    assert not (world / "options").exists()
