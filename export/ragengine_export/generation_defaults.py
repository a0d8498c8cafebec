"""What a checkpoint's `generate` does where a call says nothing, as the options of a bundle.

The two classes read different places.  `RagTokenForGeneration` decodes with its own generation config, which
transformers fills from `generation_config.json`, or else from `config.json`.  `RagSequenceForGeneration`
decodes with its generator, and so with the generator's; a few settings it reads from `RagConfig`.
"""

from typing import Any

from ragengine.errors import ExportError, OptionsError
from ragengine.options import OPTION_NAMES, GenerationOptions
from ragengine_export.checkpoint import Checkpoint

# Fields of a generation config that do not change which tokens come out of a search.
_NO_EFFECT = {"transformers_version", "_from_model_config", "use_cache", "bos_token_id", "pad_token_id"}
_NO_EFFECT |= {"return_dict_in_generate", "output_scores", "output_logits", "output_attentions"}
_NO_EFFECT |= {"output_hidden_states"}


def generation_defaults(checkpoint: Checkpoint) -> tuple[GenerationOptions, list[str]]:
    """The options of ``checkpoint``, and a warning for each of its settings that they do not follow.

    A setting that is None takes transformers' default, which is that of :class:`GenerationOptions`.

    Raises:
        ExportError: a setting has a value that is refused in a call, too.
    """
    values, warnings = _token(checkpoint) if _is_token(checkpoint) else _sequence(checkpoint)
    config, reader = checkpoint.generation_config, checkpoint.config.generator
    if values["decoder_start_token_id"] is None:  # as `GenerationMixin._prepare_special_tokens`
        own = (getattr(reader, name, None) for name in ("decoder_start_token_id", "bos_token_id"))
        values["decoder_start_token_id"] = _first_set(config.bos_token_id, *own)
    longest = values["max_length"] or GenerationOptions.max_length
    values["max_length"] = min(longest, checkpoint.generator.shape.max_positions or longest)  # possible
    if values["eos_token_id"] in (None, []):
        values["eos_token_id"] = None
        warnings.append("the checkpoint has no eos_token_id: only max_length ends an answer")
    warnings += [
        f"the checkpoint's generation config sets {name}={value!r}, which is not supported"
        for name, value in config.to_diff_dict().items()
        if name not in OPTION_NAMES and name not in _NO_EFFECT and value is not None
    ]
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return GenerationOptions(**given), warnings
    except OptionsError as reason:
        raise ExportError(
            f"the generation config of {checkpoint.source} cannot be a bundle's: {reason} Change it there."
        ) from reason


def _is_token(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "RagTokenForGeneration"


def _common(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every option by name: the generation config's, None where it has none, and those of `RagConfig`."""
    rag = checkpoint.config
    values = {name: getattr(checkpoint.generation_config, name, None) for name in OPTION_NAMES}
    match values["forced_eos_token_id"]:
        case [only]:  # transformers takes lists
            values["forced_eos_token_id"] = only
    return values | {"n_docs": rag.n_docs, "do_deduplication": rag.do_deduplication}


def _token(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """RAG-Token reads no ``max_new_tokens``."""
    values = _common(checkpoint) | {"marginalize": "token"}
    unread = values.pop("max_new_tokens")
    return values, [] if unread is None else [_not_read(checkpoint, f"max_new_tokens={unread}")]


def _sequence(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """RAG-Sequence: 20 new tokens by default, and what else it reads from `RagConfig`."""
    rag, warnings = checkpoint.config, []
    values = _common(checkpoint) | {"marginalize": "sequence"}
    # transformers 5 takes these out of every config, and `generate` then finds 1.
    values |= {name: getattr(rag, name, 1) for name in ("num_beams", "num_return_sequences")}
    if values["max_length"] in (None, GenerationOptions.max_length):
        # `GenerationMixin._prepare_generated_length`, which RAG-Token's `generate` does not call
        values["max_length"] = GenerationOptions.max_length + 1
    if rag.label_smoothing or rag.reduce_loss:
        warnings.append(
            f"the checkpoint's config sets label_smoothing={rag.label_smoothing}, "
            f"reduce_loss={rag.reduce_loss}, by which {checkpoint.architecture}.generate ranks; this bundle "
            "ranks by the likelihood itself"
        )
    if checkpoint.unread_generation:
        shown = ", ".join(f"{name}={value!r}" for name, value in checkpoint.unread_generation.items())
        warnings.append(_not_read(checkpoint, shown))
    return values, warnings


def _not_read(checkpoint: Checkpoint, settings: str) -> str:
    return (
        f"the checkpoint's generation config sets {settings}, which {checkpoint.architecture}.generate does "
        "not read, nor do this bundle's defaults: give it with each call"
    )


def _first_set(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
