"""What a bundle remembers of its checkpoint, so that one can be made of it again: configs, and no weights.

It stands in the manifest as ``created_from.checkpoint``.  The runtime does not read it.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from ragengine.bundle.manifest import BundleManifest
from ragengine.errors import BundleError
from ragengine.storage.schema import Size, join_errors, parse
from ragengine_export.checkpoint import Checkpoint
from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.graphs.text_encoder import DenseShape

_PRIVATE = ("_name_or_path", "name_or_path", "transformers_version")
"""Fields of a config that name paths of a machine, or change with every release."""
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class StepOrigin:
    """What follows the pooling: a dense layer, or a normalisation, whose other fields say nothing."""

    kind: Literal["dense", "normalize"]
    name: str = ""
    in_features: Size = 1
    out_features: Size = 1
    bias: bool = True
    activation: Literal["", "tanh", "relu", "gelu", "silu", "sigmoid"] = ""


@dataclass(frozen=True)
class EncoderOrigin:
    """An encoder's checkpoint.

    config          of its network
    tokenizer       its special tokens by role
    kind            a DPR encoder, a sentence-transformers folder, or a network whose pooling was given
    pooling, steps  from the states of a text to its vector, for the latter two
    include_prompt  whether a prompt counts in the pooling
    """

    config: dict[str, Any]
    tokenizer: dict[str, Any]
    kind: Literal["dpr", "sentence", "bare"] = "dpr"
    pooling: list[Literal["cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token"]] | None = None
    steps: list[StepOrigin] | None = None
    include_prompt: bool = True


@dataclass(frozen=True)
class Origin:
    """A whole checkpoint: `RagConfig`, `GenerationConfig`, both encoders, the generator's tokenizer."""

    config: dict[str, Any]
    generation: dict[str, Any]
    question_encoder: EncoderOrigin
    tokenizer: dict[str, Any]
    passage_encoder: EncoderOrigin | None = None


def origin_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a bundle shall remember of ``checkpoint``, as JSON."""
    passage = checkpoint.context_encoder
    origin = Origin(
        config=config_content(checkpoint.config),
        generation=_cleaned(checkpoint.generation_config.to_diff_dict()) | checkpoint.unread_generation,
        question_encoder=_encoder_origin(checkpoint.question_encoder),
        tokenizer=_special_tokens(checkpoint.generator.tokenizer),
        passage_encoder=None if passage is None else _encoder_origin(passage),
    )
    content: dict[str, Any] = json.loads(json.dumps(asdict(origin)))
    return content


def read_origin(manifest: BundleManifest) -> Origin | None:
    """What ``manifest`` remembers; None where an older version exported the bundle.

    Raises:
        BundleError: it is not what :func:`origin_of` writes.
    """
    content = manifest.created_from.get("checkpoint")
    if content is None:
        return None
    parsed = parse(Origin, content, "created_from.checkpoint")
    if parsed.value is None:
        raise BundleError(f"The manifest cannot be used: {join_errors(parsed.errors)}; export it again.")
    return parsed.value


def dense_shapes(origin: EncoderOrigin) -> tuple[DenseShape | Literal["normalize"], ...]:
    """The steps after the pooling, as shapes."""
    return tuple(
        "normalize"
        if step.kind == "normalize"
        else DenseShape(step.name, step.in_features, step.out_features, step.bias, step.activation)
        for step in origin.steps or []
    )


def config_content(config: Any) -> dict[str, Any]:
    """A config of transformers as JSON, complete, and without what is private to a machine or a release."""
    content: dict[str, Any] = _cleaned(json.loads(config.to_json_string(use_diff=False)))
    return content


def _encoder_origin(encoder: EncoderCheckpoint) -> EncoderOrigin:
    origin = EncoderOrigin(config_content(encoder.model.config), _special_tokens(encoder.tokenizer))
    if encoder.model.config.model_type == "dpr":
        return origin
    head = encoder.shape.head
    return replace(
        origin,
        kind="bare" if encoder.folder is None else "sentence",
        pooling=list(head.pooling),
        steps=[
            StepOrigin("dense", **asdict(step)) if isinstance(step, DenseShape) else StepOrigin("normalize")
            for step in head.steps
        ],
        include_prompt=encoder.folder is None or encoder.folder.include_prompt,
    )


def _cleaned(value: Any) -> Any:
    """``value`` without the fields that are private to a machine or a release, on every level."""
    if not isinstance(value, dict):
        return value
    return {name: _cleaned(inner) for name, inner in value.items() if name not in _PRIVATE}


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The special tokens by role, as texts."""
    given = ((role, getattr(tokenizer, role, None)) for role in _ROLES)
    return {role: str(token) for role, token in given if token is not None}
