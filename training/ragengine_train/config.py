"""The configuration of a run: the tables of the TOML file as frozen dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from ragengine.storage.schema import Range

Count = Annotated[int, Range(0, 1 << 31)]
Size = Annotated[int, Range(1, 1 << 31)]
Weight = Annotated[float, Range(0, 1e6)]
STAGES = ("encoders", "generator", "joint")
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "save_total_limit": 1,
    "logging_steps": 20,
    "metric_for_best_model": "exact_match",
    "greater_is_better": True,
    "use_cpu": not torch.cuda.is_available(),  # without it transformers refuses bf16 on a CPU
}
"""Defaults of ``TrainingArguments`` that differ from those of transformers."""


@dataclass(frozen=True)
class DataConfig:
    """`[data]`: what `ragengine index build` reads, and questions with their answers, one a line."""

    passages: str
    train: str | list[str]
    dev: str | None = None
    dev_questions: Size = 500
    """How many of `dev` are answered; retrieval is measured on all of them."""


@dataclass(frozen=True)
class ModelConfig:
    """`[model]`: the networks that training starts from, and how the RAG model reads and answers."""

    question_encoder: str
    generator: str
    context_encoder: str | None = None
    share_encoders: bool = False
    pooling: (
        Literal["cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token", "pooler"] | None
    ) = None
    """How a bare encoder makes a vector of a text's states; a BERT without it becomes a DPR encoder."""
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
    """The settings of every stage; ``arguments`` are the fields of ``transformers.TrainingArguments``."""

    train: str | list[str] | None = None
    sample: dict[str, float] = field(default_factory=dict)
    freeze: list[str] = field(default_factory=list)
    profile_step: Count = 0
    """The step that is profiled; 0 for none."""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_passage(self) -> bool:
        """Whether an example without a gold passage teaches nothing."""
        return True

    @property
    def needs_answer(self) -> bool:
        """Whether an example without an answer teaches nothing."""
        return True

    @property
    def uses_passages(self) -> bool:
        """Whether gold passages are learned from, where examples have them."""
        return True


@dataclass(frozen=True)
class AnsweringConfig(StageConfig):
    """A stage whose generator learns."""

    dropout: dict[str, Annotated[float, Range(0, 1)]] = field(default_factory=dict)
    """Fields of the generator's config with ``dropout``, ``dropout_rate`` or ``layerdrop`` in their name."""
    early_stopping_patience: Count = 0
    """Evaluations without a better exact match after which the stage ends; 0 for no such end."""


@dataclass(frozen=True)
class EncodersConfig(StageConfig):
    """`[encoders]`: DPR pre-training."""

    hard_negatives: Count = 0
    refresh_negatives: list[Count] = field(default_factory=list)
    questions_per_passage: Size = 1
    question_negatives: bool = False
    """Whether the questions of a hard negative are trained on with it."""

    @property
    def needs_answer(self) -> bool:
        """Passages alone are learned from."""
        return False


@dataclass(frozen=True)
class GeneratorConfig(AnsweringConfig):
    """`[generator]`: warm-up on gold passages."""


@dataclass(frozen=True)
class JointConfig(AnsweringConfig):
    """`[joint]`: question encoder and generator, or the passage encoder too, on the marginal likelihood."""

    draw_answers: bool = False
    """Whether an example is trained on one of its answers, drawn with the seed, instead of on the first."""
    train_context_encoder: bool = False
    """Whether p(z | x) has the vectors of the passage encoder as it is now, and it learns with the others."""
    reindex_every: Count = 0
    """Steps after which the passages are encoded again in the background; 0 for never."""
    reindex_delay: Count | None = None
    """Steps from the encoding of an index to its use; as soon as it is ready where None."""
    dpr_weight: Weight = 0.0
    """Weight of DPR's loss beside the marginal one, at the first step."""
    dpr_weight_end: Weight | None = None
    """Its weight at the last step, and between them on a line; the same all the time where None."""
    retrieval_only: bool = False
    """Whether DPR's loss is all there is: the generator neither runs nor learns."""

    @property
    def needs_passage(self) -> bool:
        """Without the marginal loss, yes."""
        return self.retrieval_only

    @property
    def needs_answer(self) -> bool:
        """For the marginal loss, yes."""
        return not self.retrieval_only

    @property
    def uses_passages(self) -> bool:
        """With DPR's loss, yes."""
        return self.retrieval_only or self.dpr_weight > 0 or bool(self.dpr_weight_end)

    def weight_of_dpr(self, step: int, steps: int) -> float:
        """The weight of DPR's loss at ``step`` of ``steps``, the first is 0."""
        end = self.dpr_weight if self.dpr_weight_end is None else self.dpr_weight_end
        return self.dpr_weight + (end - self.dpr_weight) * step / max(1, steps - 1)


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


CHECKPOINTING = {
    "gradient_checkpointing": "gradient_checkpointing_kwargs",
    "activation_checkpointing": "activation_checkpointing_kwargs",
}
"""The setting and its arguments, by their names before transformers 5.23 and since; both still work."""


def split_checkpointing(arguments: dict[str, Any]) -> tuple[dict[str, Any], bool, dict[str, Any]]:
    """Fields of ``TrainingArguments`` without gradient checkpointing, whether it is on, and its arguments.

    The Trainer asks the outer network for it, which here may have none where those inside have it.
    """
    names = {*CHECKPOINTING, *CHECKPOINTING.values()}
    others = {name: value for name, value in arguments.items() if name not in names}
    kwargs: dict[str, Any] = {"use_reentrant": False}
    for name in CHECKPOINTING.values():
        kwargs |= arguments.get(name) or {}
    return others, any(arguments.get(name) for name in CHECKPOINTING), kwargs


def listed(value: str | list[str]) -> list[str]:
    """A list of one string, or the list itself."""
    return [value] if isinstance(value, str) else value
