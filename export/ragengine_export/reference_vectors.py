"""The vectors of an encoder by torch, which its graph is compared with."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.graphs.text_encoder import DenseShape

_ACTIVATIONS: Final[Mapping[str, Any]] = {
    "": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
}


def torch_vectors(encoder: EncoderCheckpoint, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """The vectors of token ids and their mask [N, S] by torch: float32 [N, E].

    DPR's model has them as its output.  A pooling is taken of each text alone, without its padding, and so
    shares nothing with the graph's.
    """
    with torch.no_grad():
        output = encoder.model(input_ids=ids, attention_mask=mask)
        if encoder.model.config.model_type == "dpr":
            return output.pooler_output
        pairs = zip(output.last_hidden_state, mask.sum(dim=1).tolist(), strict=True)
        vectors = torch.stack([_pooled(encoder, states[:length]) for states, length in pairs])
        for step in encoder.shape.head.steps:
            if isinstance(step, DenseShape):
                bias = torch.tensor(encoder.state[f"{step.name}.bias"]) if step.bias else None
                weight = torch.tensor(encoder.state[f"{step.name}.weight"])
                vectors = _ACTIVATIONS[step.activation](torch.nn.functional.linear(vectors, weight, bias))
            else:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors


def _pooled(encoder: EncoderCheckpoint, states: torch.Tensor) -> torch.Tensor:
    """What is pooled of one text's states [S, hidden size]."""
    head = encoder.shape.head
    own = states[head.skipped :]
    ranks = torch.arange(head.skipped + 1, len(states) + 1)[:, None]
    pools = {
        "cls": own[0],
        "mean": own.mean(dim=0),
        "max": own.max(dim=0).values,
        "mean_sqrt_len": own.sum(dim=0) / len(own) ** 0.5,
        "weighted_mean": (own * ranks).sum(dim=0) / ranks.sum(),
        "last_token": own[-1],
    }
    return torch.cat([pools[pooling] for pooling in head.pooling])
