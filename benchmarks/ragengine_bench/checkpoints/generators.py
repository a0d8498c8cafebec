"""Random generators of every model type: their configs, special tokens and tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    BartConfig,
    BlenderbotSmallConfig,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    PLBartConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    T5Config,
)

from ragengine_bench.checkpoints.spec import CheckpointSpec
from ragengine_bench.checkpoints.tokenizers import (
    byt5_tokenizer,
    marian_tokenizer,
    mbart50_tokenizer,
    mbart_tokenizer,
    pegasus_tokenizer,
    plbart_tokenizer,
    t5_tokenizer,
    train_generator_tokenizer,
)


@dataclass(frozen=True)
class RandomGenerator:
    """How a random generator is made.

    config       from the spec, the size of the vocabulary and the tokenizer
    tokenizer    from a source of randomness, a number of entries, and a folder for its files
    forced_bos   the token that answers begin with where the spec forces one: a language code or BOS
    """

    config: Callable[[CheckpointSpec, int, PreTrainedTokenizerBase], PretrainedConfig]
    tokenizer: Callable[[np.random.Generator, int, Path], PreTrainedTokenizerBase]
    forced_bos: str | None = None


def _bart_like(
    kind: Callable[..., PretrainedConfig],
    spec: CheckpointSpec,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    start: str,
) -> PretrainedConfig:
    tokens = {} if kind is BartConfig else _special_tokens(tokenizer) | {"decoder_start_token_id": None}
    if start and tokens:
        tokens["decoder_start_token_id"] = getattr(tokenizer, f"{start}_token_id")
    config: PretrainedConfig = kind(
        vocab_size=vocab_size,
        max_position_embeddings=spec.positions,
        d_model=spec.d_model,
        encoder_layers=spec.encoder_layers,
        decoder_layers=spec.decoder_layers,
        encoder_attention_heads=spec.encoder_heads,
        decoder_attention_heads=spec.decoder_heads,
        encoder_ffn_dim=spec.encoder_ffn,
        decoder_ffn_dim=spec.decoder_ffn,
        activation_function=spec.activation,
        scale_embedding=spec.scale_embedding,
        tie_word_embeddings=spec.tied,
        forced_eos_token_id=tokenizer.eos_token_id if spec.forced_eos else None,
        **tokens,
    )
    return config


def _t5_like(
    kind: Callable[..., PretrainedConfig],
    feed_forward: str,
    spec: CheckpointSpec,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
) -> PretrainedConfig:
    config: PretrainedConfig = kind(
        vocab_size=vocab_size,
        d_model=spec.d_model,
        d_kv=spec.d_kv,
        d_ff=spec.encoder_ffn,
        num_layers=spec.encoder_layers,
        # transformers 5.23 makes a cache for as many layers as the encoder has, and fails with others
        num_decoder_layers=spec.encoder_layers,
        num_heads=spec.encoder_heads,
        relative_attention_num_buckets=spec.buckets,
        relative_attention_max_distance=spec.max_distance,
        feed_forward_proj=feed_forward or spec.activation,
        tie_word_embeddings=spec.tied,
        **_special_tokens(tokenizer),
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return config


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}


GENERATORS: dict[str, RandomGenerator] = {
    "bart": RandomGenerator(partial(_bart_like, BartConfig, start="eos"), train_generator_tokenizer, "<s>"),
    "t5": RandomGenerator(partial(_t5_like, T5Config, ""), t5_tokenizer),
    "flan-t5": RandomGenerator(partial(_t5_like, T5Config, "gated-gelu"), t5_tokenizer),
    "mt5": RandomGenerator(partial(_t5_like, MT5Config, "gated-gelu"), t5_tokenizer),
    "byt5": RandomGenerator(partial(_t5_like, T5Config, "gated-gelu"), byt5_tokenizer),
    "mbart": RandomGenerator(partial(_bart_like, MBartConfig, start="eos"), mbart_tokenizer, "ro_RO"),
    "mbart-50": RandomGenerator(partial(_bart_like, MBartConfig, start="eos"), mbart50_tokenizer, "sl_SI"),
    "pegasus": RandomGenerator(partial(_bart_like, PegasusConfig, start="pad"), pegasus_tokenizer),
    "plbart": RandomGenerator(partial(_bart_like, PLBartConfig, start="eos"), plbart_tokenizer, "java"),
    "blenderbot-small": RandomGenerator(
        partial(_bart_like, BlenderbotSmallConfig, start="bos"), train_generator_tokenizer, "<s>"
    ),
    "marian": RandomGenerator(partial(_bart_like, MarianConfig, start="pad"), marian_tokenizer),
}
"""By name: a model type, or a variant of one that differs in its config or its tokenizer."""


def forced_bos(name: str, tokenizer: Any) -> int | None:
    """The token that answers of a generator begin with where its spec forces one."""
    token = GENERATORS[name].forced_bos
    return None if token is None else int(tokenizer.convert_tokens_to_ids(token))
