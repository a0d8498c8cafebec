"""One stage under transformers' ``Trainer``: it resumes where it was killed, and reports its progress."""

import fnmatch
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import DistributedType
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from ragengine.errors import OptionsError
from ragengine_train.config import DEFAULTS, AnsweringConfig, StageConfig, split_checkpointing
from ragengine_train.dev_samples import DevSet
from ragengine_train.json_files import read_json, write_json
from ragengine_train.processes import count, first, is_first, rank
from ragengine_train.profiling import StepProfile
from ragengine_train.progress import Progress, TrainProgress
from ragengine_train.wandb_runs import EndWandbRun

T = TypeVar("T")
LogHistory = list[dict[str, float]]
_PROCESSES = "processes.json"  # beside a stage's checkpoints: how many write them
_SHARED_OUT = {
    DistributedType.DEEPSPEED,
    DistributedType.FSDP,
    DistributedType.MEGATRON_LM,
    DistributedType.XLA,
}


@dataclass(frozen=True)
class Trained:
    """What a stage leaves beside its weights: the Trainer's log, and seconds, all runs together."""

    log_history: LogHistory
    seconds: float


class StageTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """``Trainer`` over an order that is drawn ahead, with the seconds so far in every log entry."""

    control: Any

    def __init__(
        self, stage: str, progress: Progress, *args: Any, dev: DevSet | None = None, **kwargs: Any
    ) -> None:
        # The Trainer looks whether there is a dev set, and `evaluate` is what measures it.
        super().__init__(*args, eval_dataset=None if dev is None else list(dev.examples), **kwargs)
        self._stage, self._progress, self._dev = stage, progress, dev
        # Our losses are means of a batch: the Trainer divides them by the number of accumulated batches.
        self.model_accepts_loss_kwargs = False
        self._started = time.perf_counter()
        self.remove_callback(PrinterCallback)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One batch forward and backward.

        Raises :class:`OptionsError` when the loss is not finite: the Trainer would leave it out of the log
        and go on with weights that are not finite either.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise OptionsError(
                f"The loss is {float(loss)} at step {self.state.global_step + 1}; lower learning_rate, now "
                f"{self.args.learning_rate:g}, or take bf16 where it is fp16; begin again with --from."
            )
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the dev questions, and write the answers beside the checkpoints as `samples-STEP.jsonl`."""
        assert self._dev is not None
        step, total = self.state.global_step, self.state.max_steps
        self.model.eval()
        with torch.no_grad():
            found = self._dev.measure(Path(self.args.output_dir) / f"samples-{step}.jsonl")
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        self._progress(TrainProgress(self._stage, f"  {step}/{total} dev {shown}"))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add ``seconds`` of training, those before a resume too, and report the entry."""
        before = [entry["seconds"] for entry in self.state.log_history if "seconds" in entry]
        now = time.perf_counter()
        logs["seconds"] = round((before[-1] if before else 0.0) + now - self._started, 1)
        self._started = now
        super().log(logs, start_time)
        if "loss" in logs:
            step, total, loss = self.state.global_step, self.state.max_steps, float(logs["loss"])
            rate = f"rate {float(logs.get('learning_rate', 0)):.1e}"
            message = f"  {step}/{total} loss {loss:.4f} {rate} {logs['seconds']:.0f} s"
            self._progress(TrainProgress(self._stage, message, step, total, loss))


def through(wrapped: Any, network: Any, function: Callable[[Any], T]) -> T:
    """``function(network)`` as the forward pass of ``wrapped``.

    DistributedDataParallel takes the mean of the gradients only after its own forward pass, which calls the
    network's.  ``wrapped`` may be the network itself.
    """
    if wrapped is network:
        return function(network)
    own = vars(network).get("forward")  # accelerate's, where it has put one before the class's

    def restore() -> None:
        vars(network).pop("forward", None)
        if own is not None:
            network.forward = own

    def forward() -> T:
        restore()
        return function(network)

    network.forward = forward
    try:
        result: T = wrapped()
    finally:
        restore()
    return result


def training_arguments(stage: StageConfig, output: Path, seed: int, examples: int) -> TrainingArguments:
    """The stage's ``TrainingArguments``; epochs over ``examples`` are turned into steps.

    Raises :class:`OptionsError` where it would run on several GPUs in one process, or share the networks out.
    """
    ours: dict[str, Any] = {
        "output_dir": str(output),
        "seed": seed,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(**(DEFAULTS | split_checkpointing(stage.arguments)[0] | ours))
    if arguments.n_gpu > 1:
        # The Trainer would split every batch, whose labels are places among the passages of the whole.
        raise OptionsError(
            f"A process trains on one GPU, and this one sees {arguments.n_gpu}; start one for each by "
            f"torchrun --nproc_per_node {arguments.n_gpu} -m ragengine_train, or show it one with "
            "CUDA_VISIBLE_DEVICES=0."
        )
    kind = arguments.distributed_state.distributed_type
    if kind in _SHARED_OUT:
        raise OptionsError(
            f"The launcher asks for {kind.value}, and each process has whole networks here; start it with "
            "torchrun, or without DeepSpeed, FSDP and Megatron-LM."
        )
    if arguments.eval_strategy != "no" and arguments.save_total_limit == 1:
        arguments.save_total_limit = 2  # one would be the best, and a killed run goes on from the last
    if arguments.max_steps < 1:
        arguments.max_steps = max(
            1, round(arguments.num_train_epochs * examples / examples_a_step(arguments))
        )
    return arguments


def examples_a_step(arguments: TrainingArguments) -> int:
    """Examples that one step of the optimizer has seen, in all processes together."""
    return examples_a_batch(arguments) * int(arguments.gradient_accumulation_steps)


def examples_a_batch(arguments: TrainingArguments) -> int:
    """Examples of the batches that all processes read at the same time."""
    return int(arguments.per_device_train_batch_size) * count()


def freeze(model: torch.nn.Module, patterns: Iterable[str]) -> None:
    """Keep the parameters whose name matches a pattern as they are.

    A leading ``rag.`` of a RAG model's names is left out.  Raises :class:`OptionsError` for a pattern that
    matches nothing, and where nothing is left to train.
    """
    names = {name.removeprefix("rag."): parameter for name, parameter in model.named_parameters()}
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            shown = ", ".join(list(names)[:3])
            raise OptionsError(f"freeze has {pattern!r}, which matches no parameter; names are as {shown}.")
        for name in matched:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise OptionsError(f"freeze leaves none of {len(names)} parameters to train; remove a pattern.")


def train_stage(
    model: torch.nn.Module,
    dataset: "Sequence[Any] | Dataset[Any]",
    collate: Callable[[list[Any]], dict[str, Any]],
    arguments: TrainingArguments,
    *,
    stage: str,
    progress: Progress,
    settings: StageConfig,
    trainer: Callable[..., StageTrainer] = StageTrainer,
    callbacks: Sequence[TrainerCallback] = (),
    dev: DevSet | None = None,
) -> Trained:
    """Train ``model`` in place, from the last whole checkpoint of the output folder if there is one.

    ``stage`` is the name of the stage in what ``progress`` is told, ``dev`` what is measured in between.
    """
    callbacks = [*callbacks, OwnDropout(), *_callbacks(settings, arguments)]
    _, again, kwargs = split_checkpointing(settings.arguments)
    if again:
        checkpoint_activations(model, kwargs)
    folder = Path(arguments.output_dir)
    resumed = first(lambda: resumed_checkpoint(folder, stage))
    model.train()
    config: Any = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)  # the Trainer sets it to False, which would be saved
    loop = trainer(
        stage, progress, dev=dev,
        model=model, args=arguments, train_dataset=dataset, data_collator=collate, callbacks=callbacks,
    )  # fmt: skip
    loop.train(resume_from_checkpoint=resumed)
    if use_cache is not None:
        config.use_cache = use_cache
    model.eval()
    history: LogHistory = loop.state.log_history
    return Trained(history, max(entry.get("seconds", 0.0) for entry in history))


class SaveBeside(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Write into each checkpoint what the weights do not have: its user's tokenizers, for one."""

    def __init__(self, save: Callable[[Path], object]) -> None:
        """``save`` is called with the folder of a checkpoint."""
        self._save = save

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the weights."""
        if is_first():
            self._save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class OwnDropout(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Let each process drop other units: the Trainer gives all of them the same seed."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the state of a resumed run is read."""
        if not is_first():
            torch.manual_seed(args.seed + rank())


def _callbacks(settings: StageConfig, arguments: TrainingArguments) -> Iterator[TrainerCallback]:
    if isinstance(settings, AnsweringConfig) and settings.early_stopping_patience:
        yield EarlyStoppingCallback(settings.early_stopping_patience)
    if settings.profile_step and is_first():
        yield StepProfile(settings.profile_step, Path(arguments.output_dir))
    if "wandb" in arguments.report_to:
        yield EndWandbRun()


def checkpoint_activations(model: torch.nn.Module, kwargs: dict[str, Any]) -> None:
    """Let every network inside compute its activations again in the backward pass (gradient checkpointing).

    Raises :class:`OptionsError` where none can.
    """
    able = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and module.supports_gradient_checkpointing
    ]
    if not able:
        raise OptionsError(
            "gradient_checkpointing is true, and no network of the stage has it; leave it out."
        )
    for module in able:
        name = "activation_checkpointing_enable"  # since transformers 5.23
        enable = getattr(module, name, None) or module.gradient_checkpointing_enable
        enable(kwargs)


def resumed_checkpoint(folder: Path, stage: str) -> str | None:
    """The newest whole checkpoint; incomplete ones, which a killed run left, are removed.

    Raises :class:`OptionsError` where it was written by another number of processes.
    """
    path = folder / _PROCESSES
    begun = int(read_json(path)["processes"]) if path.exists() else 1
    checkpoint = _last_checkpoint(folder, begun)
    if checkpoint is not None and begun != count():
        raise OptionsError(
            f"The stage {stage} was begun in {begun} processes, and a step of {count()} would read other "
            f"examples; start {begun} of them, or begin the stage again with --from {stage}."
        )
    write_json(path, {"processes": count()})
    return checkpoint


def _last_checkpoint(folder: Path, processes: int) -> str | None:
    while folder.is_dir() and (path := get_last_checkpoint(str(folder))) is not None:
        if _is_whole(Path(path), processes):
            return str(path)
        shutil.rmtree(path)
    return None


def _is_whole(checkpoint: Path, processes: int) -> bool:
    """Whether the file that the Trainer writes last is there to its end, and one of each process."""
    state = checkpoint / "trainer_state.json"
    if len(list(checkpoint.glob("rng_state*.pth"))) < processes:
        return False
    return state.exists() and state.read_text("utf-8").rstrip().endswith("}")
