"""Token ids as padded batches, and texts as token ids."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from transformers import PreTrainedTokenizerBase

Tokens: TypeAlias = Sequence[Sequence[int]]
_CHUNK = 10_000  # texts: the tokenizer keeps far more of each than its ids


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """int64 [N, S]: the rows, padded on the right to the longest."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def encoder_inputs(rows: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, int64 [N, S].  Token types are all 0, as in HF's RAG examples."""
    mask = padded([[1] * len(row) for row in rows], 0)
    return {"input_ids": padded(rows, pad_token_id), "attention_mask": mask}


def tokenized(tokenizer: PreTrainedTokenizerBase, max_length: int, *texts: Sequence[str]) -> Tokens:
    """Token ids of texts, or of pairs of texts, with special tokens, cut at ``max_length``."""
    rows: list[Sequence[int]] = []
    for start in range(0, len(texts[0]), _CHUNK):
        columns: list[Any] = [list(column[start : start + _CHUNK]) for column in texts]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length, return_attention_mask=False)
        rows += [array("i", ids) for ids in encoded["input_ids"]]  # 4 bytes a token, where a list takes 36
    return rows


def by_length(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of ``size`` of about one length."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def pad(tokenizer: PreTrainedTokenizerBase) -> int:
    """The pad token id of a tokenizer, 0 where it has none."""
    return int(tokenizer.pad_token_id or 0)
