"""Read the TOML file of `ragengine train`, checked whole before anything is computed."""

import dataclasses
import math
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from transformers import GenerationConfig, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ragengine.errors import OptionsError
from ragengine.options import OPTION_NAMES, GenerationOptions
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.schema import join_errors, parse
from ragengine_train.config import (
    CHECKPOINTING,
    DEFAULTS,
    AnsweringConfig,
    DataConfig,
    EncodersConfig,
    GeneratorConfig,
    JointConfig,
    ModelConfig,
    StageConfig,
    TrainConfig,
    listed,
    split_checkpointing,
)

T = TypeVar("T")
_STAGE_TABLES: dict[str, type[StageConfig]] = {
    "encoders": EncodersConfig,
    "generator": GeneratorConfig,
    "joint": JointConfig,
}
# Set by ragengine: another value would break resuming, or has its own place in the file.
_OURS = {
    "output_dir": "it follows from `output`",
    "seed": "`seed` stands at the top of the file",
    "data_seed": "`seed` stands at the top of the file",
    "remove_unused_columns": "the batches are made of columns no model has",
    "train_sampling_strategy": "the order is drawn ahead, so that a resumed run sees the same",
    "resume_from_checkpoint": "a run resumes by itself",
    "save_only_model": "a run resumes by itself",
    "auto_find_batch_size": "the order is drawn ahead for one batch size",
    "ignore_data_skip": "a resumed run must see the batches that it has not seen",
    "dataloader_num_workers": "the batches are tokens already",
    "do_eval": "the dev questions are measured after each stage",
    "eval_on_start": "the dev questions are measured after each stage",
    "disable_tqdm": "progress is printed line by line",
}
# What transformers' Trainer or its models cannot do with the networks and the objective of a stage.
_NOT_OF: dict[str, dict[str, str]] = {
    "encoders": {
        "label_smoothing_factor": "DPR's loss has none",
        "eval_strategy": "its dev questions are measured after the stage",
        "load_best_model_at_end": "its dev questions are measured after the stage",
    },
    "generator": {},
    "joint": {},
}
_NUMBERS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
_AT_LEAST_1 = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps")
_ARGUMENTS = {f.name: f.type for f in dataclasses.fields(TrainingArguments) if f.init and f.name not in _OURS}
_LARGEST_SEED = (1 << 32) - 1  # numpy's


def read_config(path: str | Path) -> TrainConfig:
    """Read and check a configuration file.

    Args:
        path: the TOML file; paths in it are relative to its folder.

    Returns:
        The configuration with resolved paths.

    Raises:
        OptionsError: it cannot be used; the message names every error at once.
    """
    path = checked_path(path, OptionsError)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as reason:
        told = reason.strerror or reason
        raise OptionsError(f"{path} cannot be read: {told}; give a configuration file.") from reason
    except (ValueError, RecursionError) as reason:
        raise OptionsError(f"{path} cannot be read as TOML: {reason}; give a configuration file.") from reason
    config, errors = _config(content, path.resolve().parent)
    if config is None:
        raise OptionsError(f"{path} cannot be used: {join_errors(errors)}.")
    return config


def _config(content: dict[str, Any], base: Path) -> tuple[TrainConfig | None, list[str]]:
    """The configuration, or None and every error."""
    errors = list(_top_level_errors(content, base))
    data, data_errors = _data(content.get("data"), base)
    model, model_errors = _model(content.get("model"), base)
    errors += [*data_errors, *model_errors]
    stages: dict[str, Any] = {}
    for name, cls in _STAGE_TABLES.items():
        if name in content:
            stages[name], stage_errors = _stage(cls, content[name], name, base)
            errors += stage_errors
            evaluated = stages[name] is not None and stages[name].arguments.get("eval_strategy", "no") != "no"
            if evaluated and data is not None and data.dev is None:
                errors.append(f"{name}.eval_strategy: there are no data.dev questions to evaluate on")
    if data is None or model is None or errors:
        return None, errors
    return TrainConfig(base / content["output"], data, model, content.get("seed", 0), **stages), []


def _top_level_errors(content: dict[str, Any], base: Path) -> Iterator[str]:
    """Errors of everything that is in no table."""
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    for name in sorted(content.keys() - known):
        yield f"{name}: no such setting; known are {', '.join(sorted(known))}"
    output, seed = content.get("output"), content.get("seed", 0)
    if not isinstance(output, str):
        yield "output: missing; name the folder to write"
    elif base.resolve().is_relative_to((base / output).resolve()):  # --fresh removes what it holds
        yield f"output: {output!r} is the folder of this file or above it; name one of its own"
    if type(seed) is not int or not 0 <= seed <= _LARGEST_SEED:
        yield f"seed: {seed!r} is not a whole number from 0 to {_LARGEST_SEED}"
    if not content.keys() & _STAGE_TABLES.keys():
        yield f"no stage: give one of the tables {', '.join(_STAGE_TABLES)}"


def _data(content: Any, base: Path) -> tuple[DataConfig | None, list[str]]:
    data, errors = _table(DataConfig, content, "data")
    if data is None:
        return None, errors
    train, dev = listed(data.train), [] if data.dev is None else [data.dev]
    errors += _missing(base, [data.passages], "data.passages")
    errors += [*_missing(base, train, "data.train"), *_missing(base, dev, "data.dev")]
    resolved = dataclasses.replace(
        data,
        passages=str(base / data.passages),
        train=[str(base / file) for file in train],
        dev=None if data.dev is None else str(base / data.dev),
    )
    return resolved, errors


def _model(content: Any, base: Path) -> tuple[ModelConfig | None, list[str]]:
    """Folders beside the file are named by it; every other name is one on the hub."""

    def found(name: str) -> str:
        return str(base / name) if (base / name).is_dir() else name

    model, errors = _table(ModelConfig, content, "model")
    if model is None:
        return None, errors
    context = model.question_encoder if model.context_encoder is None else model.context_encoder
    if model.share_encoders and found(context) != found(model.question_encoder):
        errors.append("model.context_encoder: with share_encoders it is the question encoder; leave it out")
    errors += generation_errors(model.generation)
    resolved = dataclasses.replace(
        model,
        question_encoder=found(model.question_encoder),
        context_encoder=found(context),
        generator=found(model.generator),
    )
    return resolved, errors


def _table(cls: type[T], content: Any, name: str) -> tuple[T | None, list[str]]:
    """A table without unknown keys."""
    if content is None:
        return None, [f"{name}: missing; give the table [{name}]"]
    unknown: list[str] = []
    if isinstance(content, dict):
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is always a dataclass
        unknown = [f"{name}.{key}: no such setting" for key in content if key not in known]
    table = parse(cls, content, name)
    return table.value, [*unknown, *table.errors]


def _stage(
    cls: type[StageConfig], content: Any, name: str, base: Path
) -> tuple[StageConfig | None, list[str]]:
    """A stage's table: its own settings, and the others for ``TrainingArguments``."""
    if not isinstance(content, dict):
        return None, [f"{name}: expected a table"]
    own = {f.name for f in dataclasses.fields(cls)} - {"arguments"}
    given = {key: value for key, value in content.items() if key not in own}
    wrong = {key: error for key, value in given.items() if (error := _argument_error(name, key, value))}
    arguments = {key: value for key, value in given.items() if key not in wrong}
    settings = {key: value for key, value in content.items() if key in own}
    parsed = parse(cls, {**settings, "arguments": arguments}, name)
    stage, errors = (
        parsed.value,
        [
            *(f"{name}.{key}: {error}" for key, error in wrong.items()),
            *_arguments_errors(name, arguments, base),
            *parsed.errors,
        ],
    )
    if stage is None:
        return None, errors
    errors += _stage_errors(stage, name)
    if stage.train is not None:
        files = listed(stage.train)
        errors += _missing(base, files, f"{name}.train")
        stage = dataclasses.replace(stage, train=[str(base / file) for file in files])
    return stage, errors


def _argument_error(stage: str, key: str, value: Any) -> str | None:
    """The error of one field of TrainingArguments, which checks no types itself; None if it is right."""
    if reason := (_OURS | _NOT_OF[stage]).get(key):
        return f"cannot be set, {reason}"
    if key not in _ARGUMENTS:
        return "neither a setting of this stage nor of TrainingArguments"
    kind = _ARGUMENTS[key]
    if kind in _NUMBERS and type(value) not in _NUMBERS[kind]:
        return f"expected {_NUMBERS[kind][-1].__name__}, found {type(value).__name__}"
    if key in CHECKPOINTING and type(value) is not bool:
        return f"expected bool, found {type(value).__name__}"
    if key in CHECKPOINTING.values() and not isinstance(value, dict):
        return f"expected a table, found {type(value).__name__}"
    if key in _AT_LEAST_1 and value < 1:
        return f"{value} is less than 1"
    return None


def _arguments_errors(name: str, arguments: dict[str, Any], base: Path) -> Iterator[str]:
    """What transformers refuses in the fields together."""
    try:
        made = TrainingArguments(output_dir=str(base), **(DEFAULTS | split_checkpointing(arguments)[0]))
        for report in get_reporting_integration_callbacks(made.report_to):
            report()  # it may need a package
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as reason:
        yield f"{name}: {str(reason).strip().splitlines()[0]}"


def _stage_errors(stage: StageConfig, name: str) -> Iterator[str]:
    """Settings that do not go together."""
    for group, share in stage.sample.items():
        if not 0 < share < math.inf:
            yield f"{name}.sample.{group}: {share} is not a finite number above 0"
    if isinstance(stage, AnsweringConfig):
        for field in stage.dropout:
            if "dropout" not in field and "layerdrop" not in field:
                yield f"{name}.dropout.{field}: no field of a dropout or layer drop"
        if stage.early_stopping_patience and stage.arguments.get("eval_strategy", "no") == "no":
            yield f"{name}.early_stopping_patience: nothing is evaluated; set eval_strategy and eval_steps"
    if isinstance(stage, EncodersConfig):
        if stage.refresh_negatives and not stage.hard_negatives:
            yield f"{name}.refresh_negatives: hard_negatives is 0, so that none is used"
        steps = stage.arguments.get("max_steps")
        for step in stage.refresh_negatives:
            if steps is not None and step >= steps:
                yield f"{name}.refresh_negatives: {step} is not before the last step, {steps}"
    if isinstance(stage, JointConfig):
        yield from _joint_errors(stage)


def _joint_errors(stage: JointConfig) -> Iterator[str]:
    """Settings of `[joint]` that do not go together."""
    every, delay, steps = stage.reindex_every, stage.reindex_delay, stage.arguments.get("max_steps")
    if every and not stage.train_context_encoder:
        yield "joint.reindex_every: without train_context_encoder the vectors of the passages do not change"
    if every and steps is not None and every >= steps:
        yield f"joint.reindex_every: {every} is not before the last step, {steps}"
    if delay is not None and not every:
        yield "joint.reindex_delay: nothing is encoded again; set reindex_every"
    elif delay is not None and delay > every:
        yield f"joint.reindex_delay: {delay} is more than reindex_every, {every}: one index is made at a time"
    if stage.retrieval_only:
        weights = [name for name in ("dpr_weight", "dpr_weight_end") if getattr(stage, name)]
        for name in [*weights, *(["dropout"] if stage.dropout else [])]:
            yield f"joint.{name}: with retrieval_only DPR's loss is all there is; leave it out"
        if stage.arguments.get("label_smoothing_factor"):
            yield "joint.label_smoothing_factor: DPR's loss, the only one with retrieval_only, has none"
        if stage.draw_answers:
            yield "joint.draw_answers: with retrieval_only no answer is trained on"


def _missing(base: Path, files: Sequence[str], name: str) -> Iterator[str]:
    """An error for every file that does not exist."""
    for file in files:
        if not (base / file).exists():
            yield f"{name}: {base / file} does not exist"


def generation_errors(generation: dict[str, Any]) -> list[str]:
    """What transformers, or else ragengine, refuses in `[model.generation]`."""
    known = GenerationConfig().to_dict()
    if unknown := [key for key in generation if key not in known]:
        return [f"model.generation.{key}: no field of GenerationConfig" for key in unknown]
    try:
        GenerationConfig(**generation).validate(strict=True)
    except (ValueError, TypeError) as reason:
        return [f"model.generation: {str(reason).strip().splitlines()[0]}"]
    if not_ours := sorted(generation.keys() - OPTION_NAMES):
        return [f"model.generation.{key}: no option of ragengine" for key in not_ours]
    try:
        GenerationOptions(**generation)
    except OptionsError as reason:
        return [f"model.generation: {str(reason).rstrip('.')}"]
    return []
