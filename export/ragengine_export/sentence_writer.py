"""Writing folders of sentence-transformers, which :mod:`ragengine_export.sentence_folder` reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ragengine_export.graphs.pooling import Pooling
from ragengine_export.graphs.text_encoder import DenseShape
from ragengine_export.sentence_folder import Similarity

# The names of sentence-transformers, in the order in which its flags join them.
_MODES: Final[dict[Pooling, tuple[str, str]]] = {
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "mean_sqrt_len": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    "weighted_mean": ("weightedmean", "pooling_mode_weightedmean_tokens"),
    "last_token": ("lasttoken", "pooling_mode_lasttoken"),
}
_ACTIVATIONS: Final = {
    "": "linear.Identity",
    "tanh": "activation.Tanh",
    "relu": "activation.ReLU",
    "gelu": "activation.GELU",
    "silu": "activation.SiLU",
    "sigmoid": "activation.Sigmoid",
}
"""Where torch has them, below ``torch.nn.modules``: the library imports them by this name."""
_MODULES: Final = "sentence_transformers.models."
Step: TypeAlias = DenseShape | Literal["normalize"]


@dataclass(frozen=True)
class SentenceFiles:
    """What a folder says beside its transformer and tokenizer, which lie in it already.

    width               numbers in a state of the transformer
    steps               after the pooling; the weights of a dense one are in ``weights`` by their full names
    prompts             before questions (``query``) and passages (``document``)
    max_length          the longest text in tokens
    """

    width: int
    pooling: Sequence[Pooling]
    include_prompt: bool
    steps: Sequence[Step]
    weights: Mapping[str, NDArray[np.float32]]
    similarity: Similarity
    prompts: Mapping[str, str]
    max_length: int
    lower_case: bool


def write_sentence_files(files: SentenceFiles, folder: Path) -> None:
    """Write `modules.json` and all that it names, beside the transformer in ``folder``."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    pooling = {
        "word_embedding_dimension": files.width,
        **_modes(files.pooling),
        "include_prompt": files.include_prompt,
    }
    _write(folder / "1_Pooling" / "config.json", pooling)
    for number, step in enumerate(files.steps, start=2):
        if isinstance(step, DenseShape):
            modules.append(("Dense", f"{number}_Dense"))
            _write_dense(step, files.weights, folder / f"{number}_Dense")
        else:
            modules.append(("Normalize", f"{number}_Normalize"))
    _write(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}{kind}"}
            for number, (kind, path) in enumerate(modules)
        ],
    )
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": dict(files.prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if files.similarity == "cosine" else "dot",
        },
    )
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": files.max_length, "do_lower_case": files.lower_case},
    )


def _write_dense(step: DenseShape, weights: Mapping[str, NDArray[np.float32]], folder: Path) -> None:
    _write(
        folder / "config.json",
        {
            "in_features": step.in_features,
            "out_features": step.out_features,
            "bias": step.bias,
            "activation_function": f"torch.nn.modules.{_ACTIVATIONS[step.activation]}",
        },
    )
    names = ("weight", "bias") if step.bias else ("weight",)
    tensors = {f"linear.{name}": np.ascontiguousarray(weights[f"{step.name}.{name}"]) for name in names}
    save_file(tensors, folder / "model.safetensors")


def _modes(pooling: Sequence[Pooling]) -> dict[str, Any]:
    """As flags, which every version of the library reads; as a list where their order is another."""
    if list(pooling) == [mode for mode in _MODES if mode in pooling]:
        return {flag: mode in pooling for mode, (_, flag) in _MODES.items()}
    return {"pooling_mode": [_MODES[mode][0] for mode in pooling]}


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
