"""What a stage takes of transformers' Trainer: evaluation, early end, best weights, smoothing, profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from ragengine import RagEngine
from ragengine.errors import OptionsError
from ragengine_export import export_checkpoint
from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainProgress, TrainResult, read_config, train
from ragengine_train.checkpoint import Parts, load_generator, load_rag
from ragengine_train.joint_objective import marginal_nll
from ragengine_train.live_retriever import LiveRetriever, RagengineIndex
from ragengine_train.trainer import checkpoint_activations
from tests.support import training_world

COMMON = "logging_steps = 1\nper_device_train_batch_size = 4\n"


def run(folder: Path, world: Path, **stages: str) -> TrainResult:
    """A run over the toy world in a folder of its own."""
    return train(config(folder, world, **stages))


def config(folder: Path, world: Path, **stages: str) -> Path:
    path = training_world.write_config(folder, **stages)
    path.write_text(
        path.read_text().replace('"data/', f'"{world}/data/').replace('"start/', f'"{world}/start/')
    )
    path.write_text(path.read_text().replace("dev_questions = 40", "dev_questions = 10"))
    return path


def losses(result: TrainResult, stage: str) -> list[float]:
    return [loss for _, loss in result.stages[stage].losses]


def test_the_stage_ends_where_nothing_improves(world: Path, one_thread: None, tmp_path: Path) -> None:
    """With a learning rate of 0; best and last checkpoint stay, and the dev answers beside them."""
    stage = COMMON + (
        'max_steps = 20\nlearning_rate = 0.0\noptim = "adafactor"\nlr_scheduler_type = "cosine"\n'
        'eval_strategy = "steps"\neval_steps = 2\nsave_steps = 2\nsave_total_limit = 2\n'
        "load_best_model_at_end = true\nearly_stopping_patience = 2\n"
    )
    result = run(tmp_path, world, generator=stage)
    work = tmp_path / "run" / "work" / "generator"
    assert len(losses(result, "generator")) == 6
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]
    assert sorted(path.name for path in work.glob("samples-*")) == [f"samples-{n}.jsonl" for n in (2, 4, 6)]
    samples = [json.loads(line) for line in (work / "samples-6.jsonl").read_text("utf-8").splitlines()]
    assert len(samples) == 10
    assert samples[0].keys() == {"question", "answers", "text"}
    assert result.stages["generator"].log_history[-1].keys() >= {"step"}


def test_the_best_weights_are_kept(world: Path, one_thread: None, tmp_path: Path) -> None:
    """Learning, and then unlearning at a rate that is far too high: the result is the best, not the last."""
    stage = (
        "logging_steps = 10\nper_device_train_batch_size = 16\nmax_steps = 120\nlearning_rate = 3e-3\n"
        'eval_strategy = "steps"\neval_steps = 30\nsave_steps = 30\nload_best_model_at_end = true\n'
        'lr_scheduler_type = "constant"\nweight_decay = 0.0\nmax_grad_norm = 0.0\n'
    )
    result = run(tmp_path, world, generator=stage)
    found = [
        one["eval_exact_match"] for one in result.stages["generator"].log_history if "eval_exact_match" in one
    ]
    assert len(found) == 4
    assert result.dev["generator"]["exact_match_gold_passage"] == pytest.approx(max(found))
    assert max(found) > 0


def test_evaluating_in_between_changes_no_loss_and_resuming_none(
    world: Path, one_thread: None, tmp_path: Path
) -> None:
    """Joint tuning with dropout, evaluated: the curve of one that is not, also after an interrupt."""
    plain = COMMON + "max_steps = 6\nlearning_rate = 1e-3\nsave_steps = 2\ndropout = {dropout = 0.2}\n"
    evaluated = plain + 'eval_strategy = "steps"\neval_steps = 2\n'
    expected = (
        losses(run(tmp_path / "plain", world, joint=plain), "joint") if make(tmp_path / "plain") else []
    )
    make(tmp_path / "broken")
    path = config(tmp_path / "broken", world, joint=evaluated)

    def stop(report: TrainProgress) -> None:
        if report.stage == "joint" and report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(path, progress=stop)
    result = train(path)
    assert losses(result, "joint") == expected
    assert len(expected) == 6
    work = tmp_path / "broken" / "run" / "work" / "joint"
    checkpoint = work / "checkpoint-6"  # the last one, whichever is the best
    assert len(list(work.glob("checkpoint-*"))) == 2
    export_checkpoint(checkpoint, tmp_path / "bundle", context_encoder=result.checkpoint / "context_encoder")
    asked = json.loads((work / "samples-6.jsonl").read_text("utf-8").splitlines()[0])
    with RagEngine.load(tmp_path / "bundle", index=result.index, threads=1) as engine:
        answer = engine.generate(asked["question"], num_beams=2, max_length=10)
    assert answer.text == asked["text"], "the export of a checkpoint answers as it did in training"
    assert sorted(path.name for path in work.glob("samples-*")) == [f"samples-{n}.jsonl" for n in (2, 4, 6)]


def make(folder: Path) -> bool:
    folder.mkdir()
    return True


def test_one_step_is_profiled_by_its_parts(world: Path, one_thread: None, tmp_path: Path) -> None:
    run(tmp_path, world, joint=COMMON + "max_steps = 3\nprofile_step = 2\ngradient_checkpointing = true\n")
    work = tmp_path / "run" / "work" / "joint"
    table = (work / "profile-2.txt").read_text("utf-8")
    trace = json.loads((work / "profile-2.json").read_text("utf-8"))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"encode questions", "retrieve", "generator"} <= names
    assert any("Optimizer.step" in str(name) for name in names)
    assert "retrieve" in table
    assert not (work / "profile-1.txt").exists()


SHORT = {
    "encoders": COMMON + "max_steps = 3\nlearning_rate = 1e-3\nprofile_step = 2\n",
    "generator": COMMON + "max_steps = 3\nlearning_rate = 1e-3\n",
    "joint": COMMON + "max_steps = 3\nlearning_rate = 1e-3\n",
}


@pytest.fixture(scope="module")
def short_run(world: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Three steps of each stage, in float32."""
    return run(tmp_path_factory.mktemp("short"), world, **SHORT)


def test_the_parts_of_a_step_of_the_encoders_are_named(short_run: TrainResult) -> None:
    table = (short_run.report.parent / "work/encoders/profile-2.txt").read_text("utf-8")
    assert "encode questions" in table
    assert "encode passages" in table


def test_gradient_checkpointing_changes_no_curve(
    short_run: TrainResult, world: Path, one_thread: None, tmp_path: Path
) -> None:
    again = {name: body + "gradient_checkpointing = true\n" for name, body in SHORT.items()}
    result = run(tmp_path, world, **again)
    for stage in SHORT:
        assert losses(result, stage) == pytest.approx(losses(short_run, stage), rel=1e-5), stage


def test_bf16_on_a_cpu(short_run: TrainResult, world: Path, one_thread: None, tmp_path: Path) -> None:
    """The networks compute in bfloat16, which shows in the losses; scores do not, and so it is little."""
    result = run(tmp_path, world, **{name: body + "bf16 = true\n" for name, body in SHORT.items()})
    for stage in SHORT:
        assert losses(result, stage) != losses(short_run, stage), stage
        assert losses(result, stage) == pytest.approx(losses(short_run, stage), abs=0.02), stage


def test_fp16_on_a_cpu_is_refused(world: Path, tmp_path: Path) -> None:
    """accelerate would compute in float32 without a word."""
    with pytest.raises(OptionsError, match=r"joint\.fp16 is true, and a CPU has .* set bf16 = true"):
        run(tmp_path, world, joint=COMMON + "max_steps = 1\nfp16 = true\nuse_cpu = true\n")


def test_each_stage_is_a_run_of_wandb(
    world: Path, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline; where the caller has begun a run, it stays open."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    stage = COMMON + 'max_steps = 2\nreport_to = "wandb"\n'
    for name in ("own", "callers"):
        (tmp_path / name).mkdir()
    run(tmp_path / "own", world, generator=stage, joint=stage)
    assert wandb.run is None
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
    begun = wandb.init(dir=str(tmp_path))
    run(tmp_path / "callers", world, generator=stage)
    assert wandb.run is begun
    assert "train/loss" in begun.summary.keys()  # noqa: SIM118  # it has no `in`
    wandb.finish()


def test_tensorboard_has_the_losses(world: Path, one_thread: None, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = run(tmp_path, world, generator=COMMON + 'max_steps = 3\nreport_to = "tensorboard"\n')
    (logs,) = (tmp_path / "run" / "work" / "generator" / "runs").iterdir()
    events = accumulator.EventAccumulator(str(logs)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, pytest.approx(loss)) for step, loss in result.stages["generator"].losses]


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_smoothed_marginal_loss(kind: str, world: Path, unbroken: TrainResult) -> None:
    """(1 - e) nll + e / V of the mean of all log-probabilities, over the mixture or each document's share."""
    settings = read_config(world / "run.toml")
    model = (
        settings.model if kind == "token" else type(settings.model)(**{**vars(settings.model), "type": kind})
    )
    run_folder = world / "run" / "joint"
    parts = Parts(str(run_folder / "question_encoder"), "", str(run_folder / "generator"))
    rag = load_rag(parts, model).eval()
    tokenizers = [load_tokenizer(one) for one in (parts.question_encoder, parts.generator)]
    index = RagengineIndex(world / "run" / "index", model.n_docs)
    rag.rag.retriever = LiveRetriever(rag.config, *tokenizers, index)
    asked = tokenizers[0](
        ["who leads the town of x?", "which person is the mayor?"], return_tensors="pt", padding=True
    )
    start, pad = rag.config.generator.decoder_start_token_id, rag.config.generator.pad_token_id
    labels = torch.tensor([[start, 9, 12, 2], [start, 8, 2, pad]])
    found = {}
    with torch.no_grad():
        for epsilon in (0.0, 0.1):
            rag.config.label_smoothing = epsilon
            found[epsilon] = marginal_nll(rag, asked["input_ids"], asked["attention_mask"], labels)
    index.close()
    assert (found[0.1] != found[0.0]).all()
    size = rag.config.generator.vocab_size
    smooth = (found[0.1] - 0.9 * found[0.0]) / (0.1 / size)
    # The mean of -log p over the vocabulary is at least log V for every token of the answer.
    tokens = (labels != pad).sum(1) - 1
    assert (smooth / size >= tokens * torch.log(torch.tensor(float(size))) - 1e-2).all()


def test_dropout_of_the_generator(world: Path) -> None:
    settings = read_config(world / "run.toml")
    source = str(world / "start" / "generator")
    changed = {"dropout": 0.5, "attention_dropout": 0.25, "decoder_layerdrop": 0.125}
    generator = load_generator(source, settings.model, changed)
    layer = generator.model.decoder.layers[0]
    assert (layer.dropout, layer.self_attn.dropout, generator.model.decoder.layerdrop) == (0.5, 0.25, 0.125)
    with pytest.raises(
        OptionsError, match=r"has no dropout_rate; its config has activation_dropout, attention_dro"
    ):
        load_generator(source, settings.model, {"dropout_rate": 0.1})


def test_activations_are_computed_again() -> None:
    """The gradients are the same; a network that cannot is refused."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 20}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}
    model = BartForConditionalGeneration(BartConfig(**sizes, encoder_layers=1, decoder_layers=1)).train()
    ids = torch.tensor([[4, 5, 6, 2]])
    gradients = []
    for again in (False, True):
        if again:
            checkpoint_activations(torch.nn.ModuleDict({"inner": model}), {"use_reentrant": False})
            assert model.model.encoder.gradient_checkpointing
        model.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append(
            torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        )
    torch.testing.assert_close(*gradients)
    with pytest.raises(OptionsError, match="no network of the stage has it"):
        checkpoint_activations(torch.nn.Linear(2, 2), {})


def test_settings_that_do_not_go_together(world: Path, tmp_path: Path) -> None:
    wrong = config(
        tmp_path,
        world,
        generator="max_steps = 1\nearly_stopping_patience = 2\ndropout = {d_model = 0.5, dropout = 2.0}\n",
        joint='max_steps = 1\neval_strategy = "steps"\neval_steps = 3\nsave_steps = 2\n'
        "load_best_model_at_end = true\n",
    )
    wrong.write_text(wrong.read_text().replace(f'dev = "{world}/data/dev.jsonl"\n', ""))
    with pytest.raises(OptionsError) as caught:
        read_config(wrong)
    for part in (
        "generator.dropout.dropout: 2.0 is not from 0 to 1",
        "joint: --load_best_model_at_end requires",
        "joint.eval_strategy: there are no data.dev questions",
    ):
        assert part in str(caught.value), part
    wrong.write_text(wrong.read_text().replace("dropout = 2.0", "dropout = 0.5"))
    with pytest.raises(OptionsError, match=r"early_stopping_patience: nothing is evaluated") as caught:
        read_config(wrong)
    assert "generator.dropout.d_model: no field of a dropout" in str(caught.value)
