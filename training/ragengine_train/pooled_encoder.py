"""Encoders that are not DPR's: a network of states, and the way from them to the vector of a text.

They come from a sentence-transformers folder, or from a bare network with a pooling, and are written as
sentence-transformers folders, which say how they pool.
"""

from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase
from transformers.models.dpr.modeling_dpr import DPRQuestionEncoderOutput

from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.graphs.text_encoder import DenseShape
from ragengine_export.sentence_writer import SentenceFiles, write_sentence_files

_ACTIVATIONS: Final = {
    "": torch.nn.Identity,
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
    "sigmoid": torch.nn.Sigmoid,
}


class Dense(torch.nn.Module):
    """``f(x Wᵀ + b)`` of a vector, with the weights of a checkpoint."""

    def __init__(self, encoder: EncoderCheckpoint, shape: DenseShape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = torch.nn.Linear(shape.in_features, shape.out_features, bias=shape.bias)
        self.activation = _ACTIVATIONS[shape.activation]()
        weights = {
            name: torch.tensor(encoder.state[f"{shape.name}.{name}"]) for name in self.linear.state_dict()
        }
        self.linear.load_state_dict(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""
        result: torch.Tensor = self.activation(self.linear(x))
        return result


class Normalize(torch.nn.Module):
    """A vector of length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, E] -> [N, E]."""
        return normalize(x, dim=1)


class PooledEncoder(torch.nn.Module):
    """A network, its pooling and what follows; called as a ``DPRQuestionEncoder`` is.

    Where vectors are compared by cosine they have length 1, as those of an index and its questions.
    """

    def __init__(self, encoder: EncoderCheckpoint) -> None:
        super().__init__()
        self.model = encoder.model
        self.head, self.dimension = encoder.shape.head, encoder.shape.dimension
        self.similarity, self.prompt, self.passages = encoder.similarity, encoder.prompt, encoder.passages
        self.longest, self.source = encoder.shape.max_tokens, encoder.folder
        steps: list[torch.nn.Module] = [
            Dense(encoder, step) if isinstance(step, DenseShape) else Normalize() for step in self.head.steps
        ]
        self.steps = torch.nn.ModuleList(steps)

    @property
    def config(self) -> Any:
        """That of the network."""
        return self.model.config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, return_dict: bool = True
    ) -> DPRQuestionEncoderOutput:
        """Vectors of token ids and their mask [N, S]: ``pooler_output`` [N, E]."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = self._pooled(states, attention_mask)
        for step in self.steps:
            vectors = step(vectors)
        if self.similarity == "cosine":
            vectors = normalize(vectors, dim=1)
        return DPRQuestionEncoderOutput(pooler_output=vectors)

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[N, S, H] -> [N, H], or the poolings after one another; the tokens of a prompt may not count."""
        skipped = self.head.skipped
        own = mask.clone()
        own[:, :skipped] = 0
        counted = own[..., None].to(states.dtype)
        ranks = counted * torch.arange(1, states.shape[1] + 1, device=states.device)[:, None]
        rows = torch.arange(len(states), device=states.device)
        pools = {
            "cls": lambda: states[:, skipped],
            "mean": lambda: (states * counted).sum(1) / counted.sum(1),
            "max": lambda: states.masked_fill(counted == 0, -torch.inf).max(1).values,
            "mean_sqrt_len": lambda: (states * counted).sum(1) / counted.sum(1).sqrt(),
            "weighted_mean": lambda: (states * ranks).sum(1) / ranks.sum(1),
            "last_token": lambda: states[rows, mask.sum(1) - 1],
        }
        return torch.cat([pools[pooling]() for pooling in self.head.pooling], dim=1)


def save_pooled_encoder(encoder: PooledEncoder, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a sentence-transformers folder that names no path of this machine."""
    encoder.model.config._name_or_path = ""
    encoder.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = encoder.source
    weights = {
        f"{step.shape.name}.{name}": tensor.cpu().numpy()
        for step in encoder.steps
        if isinstance(step, Dense)
        for name, tensor in step.linear.state_dict().items()
    }
    files = SentenceFiles(
        width=encoder.config.hidden_size,
        pooling=encoder.head.pooling,
        include_prompt=source is None or source.include_prompt,
        steps=encoder.head.steps,
        weights=weights,
        similarity=encoder.similarity,
        prompts={}
        if source is None
        else {"query": source.question_prompt, "document": source.passage_prompt},
        max_length=min(tokenizer.model_max_length, encoder.longest),
        lower_case=source is not None and source.lower_case,
    )
    write_sentence_files(files, folder)
