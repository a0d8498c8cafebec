"""Bans and forced tokens, against transformers' logits processors on random sequences."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from ragengine import GenerationOptions
from ragengine.generation.constraints import Constraints

V = 6


@given(
    st.lists(st.lists(st.integers(0, V - 1), min_size=9, max_size=9), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 4),
    st.integers(0, 10),
    st.one_of(st.none(), st.integers(0, V - 1)),
    st.one_of(st.none(), st.integers(0, V - 1)),
)
def test_the_allowed_tokens_are_those_of_transformers(
    beams: list[list[int]], length: int, ngram: int, min_length: int, bos: int | None, eos: int | None
) -> None:
    options = GenerationOptions(
        max_length=10,
        min_length=min_length,
        no_repeat_ngram_size=ngram,
        forced_bos_token_id=bos,
        forced_eos_token_id=eos,
        eos_token_id=2,
    )
    sequences = np.array(beams)[:, :length]
    scores = torch.zeros(len(beams), V)
    ids = torch.tensor(sequences)
    if ngram:
        scores = NoRepeatNGramLogitsProcessor(ngram)(ids, scores)
    if min_length:
        scores = MinLengthLogitsProcessor(min_length, torch.tensor([2]))(ids, scores)
    if bos is not None:
        scores = ForcedBOSTokenLogitsProcessor(bos)(ids, scores)
    if eos is not None:
        scores = ForcedEOSTokenLogitsProcessor(10, torch.tensor([eos]))(ids, scores)

    constraints = Constraints(options)
    forced = constraints.forced(length)
    if forced is not None:
        banned = [set(range(V)) - {forced}] * len(beams)
    else:
        banned = constraints.banned(sequences[None])[0]
    assert banned == [set(np.flatnonzero(np.isneginf(row))) for row in scores.numpy()]
