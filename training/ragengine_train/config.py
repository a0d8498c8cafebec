"""The TOML file of `ragengine train`, checked whole before anything is computed."""

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from transformers import GenerationConfig, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ragengine.errors import OptionsError
from ragengine.options import OPTION_NAMES, GenerationOptions
from ragengine.storage.schema import Range, join_errors, parse

T = TypeVar("T")
Count = Annotated[int, Range(0, 1 << 31)]
Size = Annotated[int, Range(1, 1 << 31)]
STAGES = ("encoders", "generator", "joint")

# What a run is about: another value would break resuming, or has its own place in the file.
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
    "eval_strategy": "the dev questions are measured after each stage",
    "do_eval": "the dev questions are measured after each stage",
    "eval_on_start": "the dev questions are measured after each stage",
    "load_best_model_at_end": "the dev questions are measured after each stage",
    "disable_tqdm": "progress is printed line by line",
}
# What transformers' Trainer or its models cannot do with the networks and the objective of a stage.
_NOT_OF: dict[str, dict[str, str]] = {
    "encoders": {
        "label_smoothing_factor": "DPR's loss has none",
        "gradient_checkpointing": "transformers' DPR encoders have none",
    },
    "generator": {},
    "joint": {
        "label_smoothing_factor": "the marginal likelihood has none here",
        "gradient_checkpointing": "transformers' RAG models have none",
    },
}
_NUMBERS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
_AT_LEAST_1 = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps")
# Where ours are not those of transformers.
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "save_total_limit": 1,
    "logging_steps": 20,
    "use_cpu": not torch.cuda.is_available(),  # else bf16 is refused on a CPU, which has it
}
_ARGUMENTS = {f.name: f.type for f in dataclasses.fields(TrainingArguments) if f.init and f.name not in _OURS}
_LARGEST_SEED = (1 << 32) - 1  # numpy's


@dataclass(frozen=True)
class DataConfig:
    """`[data]`: what `ragengine index build` reads, and questions with their answers, one a line."""

    passages: str
    train: str | list[str]
    dev: str | None = None
    dev_questions: Size = 500
    """How many of `dev` are asked where that takes the generator; all of them are searched."""


@dataclass(frozen=True)
class ModelConfig:
    """`[model]`: what training starts from, and how the RAG model reads and answers."""

    question_encoder: str
    generator: str
    context_encoder: str | None = None
    share_encoders: bool = False
    type: Literal["token", "sequence"] = "token"
    n_docs: Size = 5
    max_combined_length: Size = 300
    title_sep: str = " / "
    doc_sep: str = " // "
    prefix: str | None = None
    answer_bos: bool = False
    answer_prefix: str = ""
    max_question_length: Size = 128
    max_passage_length: Size = 256
    max_answer_length: Size = 64
    generation: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageConfig:
    """What every stage has; ``arguments`` are the fields of ``transformers.TrainingArguments``."""

    train: str | list[str] | None = None
    sample: dict[str, float] = field(default_factory=dict)
    freeze: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodersConfig(StageConfig):
    """`[encoders]`: DPR pre-training."""

    hard_negatives: Count = 0
    refresh_negatives: list[Count] = field(default_factory=list)
    questions_per_passage: Size = 1
    question_negatives: bool = False
    """Whether a hard negative, once encoded, is asked for too, by its own questions."""


@dataclass(frozen=True)
class GeneratorConfig(StageConfig):
    """`[generator]`: warm-up on gold passages."""


@dataclass(frozen=True)
class JointConfig(StageConfig):
    """`[joint]`: question encoder and generator on the marginal likelihood."""

    draw_answers: bool = False
    """Whether an example is trained on one of its answers, drawn with the seed, and not on the first."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.  Paths are resolved; a model may also be the name of one on the hub."""

    output: Path
    data: DataConfig
    model: ModelConfig
    seed: int = 0
    encoders: EncodersConfig | None = None
    generator: GeneratorConfig | None = None
    joint: JointConfig | None = None


def read_config(path: str | Path) -> TrainConfig:
    """Read and check a configuration; raises :class:`OptionsError` that names every fault at once."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as reason:
        raise OptionsError(f"{path} cannot be read as TOML: {reason}; give a configuration file.") from reason
    faults: list[str] = []
    config = _config(content, path.resolve().parent, faults)
    if config is None or faults:
        raise OptionsError(f"{path} cannot be used: {join_errors(faults)}.")
    return config


def _config(content: dict[str, Any], base: Path, faults: list[str]) -> TrainConfig | None:
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    faults += [
        f"{name}: no such setting; known are {', '.join(sorted(known))}" for name in set(content) - known
    ]
    output, seed = content.get("output"), content.get("seed", 0)
    if not isinstance(output, str):
        faults.append("output: missing; name the folder to write")
    elif base.resolve().is_relative_to((base / output).resolve()):  # --fresh removes what it holds
        faults.append(f"output: {output!r} is the folder of this file or above it; name one of its own")
    if type(seed) is not int or not 0 <= seed <= _LARGEST_SEED:
        faults.append(f"seed: {seed!r} is not a whole number from 0 to {_LARGEST_SEED}")
    data = _table(DataConfig, content.get("data"), "data", faults)
    model = _table(ModelConfig, content.get("model"), "model", faults)
    stages = {
        "encoders": _stage(EncodersConfig, content.get("encoders"), "encoders", base, faults),
        "generator": _stage(GeneratorConfig, content.get("generator"), "generator", base, faults),
        "joint": _stage(JointConfig, content.get("joint"), "joint", base, faults),
    }
    if not any(name in content for name in STAGES):
        faults.append(f"no stage: give one of the tables {', '.join(STAGES)}")
    if data is not None:
        data = _resolved_data(data, base, faults)
    if model is not None:
        model = _resolved_model(model, base)
        if model.share_encoders and model.context_encoder != model.question_encoder:
            faults.append(
                "model.context_encoder: with share_encoders it is the question encoder; leave it out"
            )
        faults += _generation_faults(model.generation)
    if data is None or model is None or faults:
        return None
    return TrainConfig(base / str(output), data, model, seed, **stages)  # type: ignore[arg-type]


def _table(cls: type[T], content: Any, name: str, faults: list[str]) -> T | None:
    """A table without unknown keys."""
    if content is None:
        faults.append(f"{name}: missing; give the table [{name}]")
        return None
    if isinstance(content, dict):
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        faults += [f"{name}.{key}: no such setting" for key in content if key not in known]
    parsed = parse(cls, content, name)
    faults += parsed.errors
    return parsed.value


def _stage(cls: type[T], content: Any, name: str, base: Path, faults: list[str]) -> T | None:
    """A stage's table: its own settings, and the others for ``TrainingArguments``."""
    if content is None:
        return None
    if not isinstance(content, dict):
        faults.append(f"{name}: expected a table")
        return None
    own = {f.name for f in dataclasses.fields(cls)} - {"arguments"}  # type: ignore[arg-type]
    arguments = {key: value for key, value in content.items() if key not in own}
    found = {key: _fault(name, key, value) for key, value in arguments.items()}
    faults += [f"{name}.{key}: {fault}" for key, fault in found.items() if fault is not None]
    arguments = {key: value for key, value in arguments.items() if found[key] is None}
    try:
        made = TrainingArguments(output_dir=str(base), **(DEFAULTS | arguments))
        for report in get_reporting_integration_callbacks(made.report_to):
            report()  # it may need a package
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as reason:
        faults.append(f"{name}: {str(reason).strip().splitlines()[0]}")
    settings = {key: value for key, value in content.items() if key in own}
    parsed = parse(cls, settings | {"arguments": arguments}, name)
    faults += parsed.errors
    stage = parsed.value
    if isinstance(stage, StageConfig):
        faults += [
            f"{name}.sample.{group}: {share} is not a finite number above 0"
            for group, share in stage.sample.items()
            if not 0 < share < math.inf
        ]
        if isinstance(stage, EncodersConfig) and stage.refresh_negatives and not stage.hard_negatives:
            faults.append(f"{name}.refresh_negatives: hard_negatives is 0, so that none is used")
        steps = arguments.get("max_steps")
        if isinstance(stage, EncodersConfig) and steps is not None:
            faults += [
                f"{name}.refresh_negatives: {step} is not before the last step, {steps}"
                for step in stage.refresh_negatives
                if step >= steps
            ]
        if stage.train is not None:
            train = [str(_existing(base, file, f"{name}.train", faults)) for file in listed(stage.train)]
            stage = dataclasses.replace(stage, train=train)
    return stage


def _fault(stage: str, key: str, value: Any) -> str | None:
    """What is wrong with a field of TrainingArguments, which checks no types itself; None if nothing is."""
    if reason := (_OURS | _NOT_OF[stage]).get(key):
        return f"cannot be set, {reason}"
    if key not in _ARGUMENTS:
        return "neither a setting of this stage nor of TrainingArguments"
    kind = _ARGUMENTS[key]
    if kind in _NUMBERS and type(value) not in _NUMBERS[kind]:
        return f"expected {_NUMBERS[kind][-1].__name__}, found {type(value).__name__}"
    if key in _AT_LEAST_1 and value < 1:
        return f"{value} is less than 1"
    return None


def listed(value: str | list[str]) -> list[str]:
    """One or several, as several."""
    return [value] if isinstance(value, str) else value


def _existing(base: Path, file: str, name: str, faults: list[str]) -> Path:
    path = base / file
    if not path.exists():
        faults.append(f"{name}: {path} does not exist")
    return path


def _resolved_data(data: DataConfig, base: Path, faults: list[str]) -> DataConfig:
    return dataclasses.replace(
        data,
        passages=str(_existing(base, data.passages, "data.passages", faults)),
        train=[str(_existing(base, file, "data.train", faults)) for file in listed(data.train)],
        dev=None if data.dev is None else str(_existing(base, data.dev, "data.dev", faults)),
    )


def _resolved_model(model: ModelConfig, base: Path) -> ModelConfig:
    """Folders beside the file are named by it; every other name is one on the hub."""

    def found(name: str) -> str:
        return str(base / name) if (base / name).is_dir() else name

    context = model.question_encoder if model.context_encoder is None else model.context_encoder
    return dataclasses.replace(
        model,
        question_encoder=found(model.question_encoder),
        context_encoder=found(context),
        generator=found(model.generator),
    )


def _generation_faults(generation: dict[str, Any]) -> list[str]:
    known = GenerationConfig().to_dict()
    faults = [
        f"model.generation.{key}: no field of GenerationConfig" for key in generation if key not in known
    ]
    if not faults:
        try:
            GenerationConfig(**generation).validate(strict=True)
        except (ValueError, TypeError) as reason:
            faults.append(f"model.generation: {str(reason).strip().splitlines()[0]}")
    if not faults:
        faults += _engine_faults(generation)
    return faults


def _engine_faults(generation: dict[str, Any]) -> list[str]:
    """What ragengine, which measures the model, says to the settings."""
    unknown = sorted(generation.keys() - OPTION_NAMES)
    if unknown:
        return [f"model.generation.{key}: no option of ragengine" for key in unknown]
    try:
        GenerationOptions(**generation)
    except OptionsError as reason:
        return [f"model.generation: {str(reason).rstrip('.')}"]
    return []
