"""Vectors of the passages in a batch of joint training: stored ones, or those of the learning encoder."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ragengine_train.batching import by_length, encoder_inputs, full_precision, pad
from ragengine_train.data import TrainingPassages
from ragengine_train.encoders import passage_tokens
from ragengine_train.live_retriever import LiveRetriever

PassageVectors: TypeAlias = Callable[[Sequence[int]], torch.Tensor]
"""Rows of passages to their vectors, float32 [N, E]."""
_BATCH = 32


class StoredVectors:
    """The vectors of the index that a retriever searches now; no gradient reaches a passage encoder."""

    def __init__(self, retriever: LiveRetriever) -> None:
        self._retriever = retriever

    def __call__(self, rows: Sequence[int]) -> torch.Tensor:
        """float32 [N, E] of rows of the index."""
        return torch.from_numpy(self._retriever.index.vectors(np.asarray(rows, np.int64)))


class LearningVectors:
    """The vectors that a passage encoder gives now, with their gradient."""

    def __init__(
        self, corpus: TrainingPassages, encoder: Any, tokenizer: PreTrainedTokenizerBase, longest: int
    ) -> None:
        self._corpus, self._encoder, self._tokenizer, self._longest = corpus, encoder, tokenizer, longest

    def __call__(self, rows: Sequence[int]) -> torch.Tensor:
        """float32 [N, E] of rows of the corpus, encoded in batches of about one length."""
        passages = [self._corpus.passages[row] for row in rows]
        tokens = passage_tokens(passages, self._encoder, self._tokenizer, self._longest)
        device = next(self._encoder.parameters()).device
        order: list[int] = []
        vectors = []
        for chosen in by_length(tokens, _BATCH):
            inputs = encoder_inputs([tokens[index] for index in chosen], pad(self._tokenizer))
            output = self._encoder(**{name: tensor.to(device) for name, tensor in inputs.items()})
            vectors.append(full_precision(output.pooler_output))
            order += chosen
        return torch.cat(vectors)[torch.tensor(order, device=device).argsort()]
