"""What is random about a checkpoint: sizes and settings, odd on purpose (no size is a multiple of anything it
need not be)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CheckpointSpec:
    """Everything that is random about a checkpoint, so that a failing test can print it."""

    seed: int
    # question encoder
    question_vocab_size: int
    question_hidden_size: int
    question_heads: int
    question_layers: int
    question_ffn: int
    question_positions: int
    question_activation: str
    projection_dim: int
    clean_up_tokenization_spaces: bool | None
    # generator
    generator_tokens: int  # entries of the tokenizer
    generator_vocab_extra: int  # rows of the embedding that the tokenizer does not know
    vocab_size: int | None  # of the generator, where it is not those two together
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    positions: int
    activation: str
    scale_embedding: bool
    tied: bool
    final_logits_bias: bool
    forced_bos: bool
    forced_eos: bool
    eos_shift: float  # added to the end token's logit, in units of `peak`: answers end
    peak: float  # standard deviation of the logits
    # RAG
    n_docs: int
    max_combined_length: int
    title_sep: str
    doc_sep: str
    rag_prefix: str | None
    generator_prefix: str | None
    prior_spread: float  # standard deviation of the doc_scores over all passages
    n_passages: int
    longest_passage: int  # words
    model_type: str = "bart"  # of the generator, a name in `generators.GENERATORS`
    d_kv: int = 0  # T5: the size of a head, which d_model says elsewhere
    buckets: int = 32  # T5: rows of the table of relative positions
    max_distance: int = 128  # T5: farther tokens share a row


def random_spec(seed: int, **overrides: Any) -> CheckpointSpec:
    """The spec of `seed`; `overrides` fix the fields that a test is about."""
    rng = np.random.default_rng([seed, 1])

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    question_heads = pick(1, 2, 3, 4)
    encoder_heads, decoder_heads = pick((1, 1), (2, 2), (2, 1), (3, 3), (4, 4), (4, 2))
    head_unit = int(np.lcm(encoder_heads, decoder_heads))
    d_model = head_unit * between(-(-16 // head_unit), 48 // head_unit)
    max_combined_length = pick(between(40, 70), between(70, 120), between(100, 200))
    spec = CheckpointSpec(
        seed=seed,
        question_vocab_size=between(200, 420),
        question_hidden_size=question_heads * between(-(-18 // question_heads), 44 // question_heads),
        question_heads=question_heads,
        question_layers=between(1, 3),
        question_ffn=between(11, 75),
        question_positions=between(120, 200),
        question_activation=pick("gelu", "relu"),
        projection_dim=pick(0, 0, between(5, 20) * 2 + 1),
        clean_up_tokenization_spaces=pick(None, True, False),
        generator_tokens=between(300, 520),
        generator_vocab_extra=pick(0, 0, between(1, 9)),
        vocab_size=None,
        d_model=d_model,
        encoder_layers=between(1, 3),
        decoder_layers=between(1, 3),
        encoder_heads=encoder_heads,
        decoder_heads=decoder_heads,
        encoder_ffn=between(9, 70),
        decoder_ffn=between(9, 70),
        positions=max_combined_length + between(0, 130),
        activation=pick("gelu", "relu", "silu"),
        scale_embedding=pick(True, False),
        tied=pick(True, True, False),
        final_logits_bias=pick(True, False),
        forced_bos=pick(True, False),
        forced_eos=pick(True, True, False),
        eos_shift=float(rng.uniform(1.0, 3.4)),
        peak=float(rng.uniform(2.0, 3.6)),
        n_docs=between(1, 7),
        max_combined_length=max_combined_length,
        title_sep=pick(" / ", " / ", ": ", "  "),
        doc_sep=pick(" // ", " // ", " | question: ", "</s>"),
        rag_prefix=pick(None, None, "rag prefix that is never read: "),
        generator_prefix=pick(None, None, "", " ", "answer:  "),
        prior_spread=float(rng.uniform(0.7, 2.2)),
        n_passages=between(30, 60),
        longest_passage=pick(10, 20, 30),
        d_kv=between(3, 12),
        buckets=2 * between(2, 8),
        max_distance=between(9, 40),
    )
    return replace(spec, **overrides)
