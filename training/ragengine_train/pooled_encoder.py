"""Encoders that are not DPR's: a network of states, and the way from them to the vector of a text.

They come from a sentence-transformers folder, or from a bare network with a pooling, and are written as
sentence-transformers folders, which say how they pool.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase
from transformers.models.dpr.modeling_dpr import DPRQuestionEncoderOutput

from ragengine_export.choices import Pooling
from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.graphs.text_encoder import DenseShape

_ACTIVATIONS: Final = {
    "": torch.nn.Identity,
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
    "sigmoid": torch.nn.Sigmoid,
}
# The names of sentence-transformers, in the order in which its flags join them.
_MODES: Final[dict[Pooling, tuple[str, str]]] = {
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "mean_sqrt_len": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    "weighted_mean": ("weightedmean", "pooling_mode_weightedmean_tokens"),
    "last_token": ("lasttoken", "pooling_mode_lasttoken"),
}
_MODULES: Final = "sentence_transformers.models."


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
    source, modules = encoder.source, [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": encoder.config.hidden_size,
            **_modes(encoder.head.pooling),
            "include_prompt": source is None or source.include_prompt,
        },
    )
    for number, step in enumerate(encoder.steps, start=2):
        kind = type(step).__name__
        place = f"{number}_{kind}"
        modules.append((kind, place))
        if isinstance(step, Dense):
            _write(
                folder / place / "config.json",
                {
                    "in_features": step.shape.in_features,
                    "out_features": step.shape.out_features,
                    "bias": step.shape.bias,
                    "activation_function": f"torch.nn.modules.activation.{type(step.activation).__name__}",
                },
            )
            weights = {
                f"linear.{name}": tensor.contiguous() for name, tensor in step.linear.state_dict().items()
            }
            save_file(weights, folder / place / "model.safetensors")
    _write(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}{kind}"}
            for number, (kind, path) in enumerate(modules)
        ],
    )
    prompts = {} if source is None else {"query": source.question_prompt, "document": source.passage_prompt}
    similarity = "cosine" if encoder.similarity == "cosine" else "dot"
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": similarity},
    )
    longest = min(tokenizer.model_max_length, encoder.longest)
    lower = source is not None and source.lower_case
    _write(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": lower})


def _modes(pooling: Sequence[Pooling]) -> dict[str, Any]:
    """As flags, which every version of the library reads; as a list where their order is another."""
    if list(pooling) == [mode for mode in _MODES if mode in pooling]:
        return {flag: mode in pooling for mode, (_, flag) in _MODES.items()}
    return {"pooling_mode": [_MODES[mode][0] for mode in pooling]}


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
