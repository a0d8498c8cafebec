"""Folders of the sentence-transformers library: what they say about the way from a text to its vector.

`modules.json` lists modules in the order of their computation.  Read here are a Transformer, Pooling, and
after it Dense and Normalize; whatever else would change the vectors is refused.  The reference is
sentence-transformers 6.2.
"""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers.utils import cached_file

from ragengine.errors import ExportError
from ragengine.messages import short_repr
from ragengine_export.choices import Pooling
from ragengine_export.graphs.text_encoder import DenseShape
from ragengine_export.loading import loaded
from ragengine_export.weights import State

Similarity = Literal["inner_product", "cosine"]

_TRANSFORMER_CONFIGS: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_POOLINGS: Final[dict[str, Pooling]] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
# What older versions write instead of pooling_mode, in the order in which they are joined.
_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: Final = {
    "Tanh": "tanh",
    "Identity": "",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
_SIMILARITIES: Final[dict[str, Similarity]] = {"cosine": "cosine", "dot": "inner_product"}
_LOADING: Final = {"torch_dtype", "dtype", "attn_implementation"}
"""Arguments of loaders that do not change float32 vectors."""


@dataclass(frozen=True)
class SentenceFolder:
    """What a folder says beside the weights of its transformer.

    transformer         the folder or hub name of the transformer and its tokenizer
    pooling             joined in this order
    include_prompt      whether the tokens of the prompt count in the pooling
    steps               after it
    state               the weights of the dense steps, by name
    similarity          how vectors are compared, and whether the folder says so
    question_prompt     before each question
    passage_prompt      before each passage
    max_length          the longest text in tokens; None where the tokenizer says it
    lower_case          whether texts are lower-cased before the tokenizer's own rules
    """

    transformer: str
    pooling: tuple[Pooling, ...]
    include_prompt: bool
    steps: tuple[DenseShape | Literal["normalize"], ...]
    state: State
    similarity: Similarity
    similarity_is_said: bool
    question_prompt: str
    passage_prompt: str
    max_length: int | None
    lower_case: bool


def read_sentence_folder(source: str) -> SentenceFolder | None:
    """Read a folder or hub name of sentence-transformers; None where there is no `modules.json`.

    Raises:
        ExportError: something in it would change the vectors and is not supported.
    """
    modules = _read_json(source, "modules.json")
    if modules is None:
        return None
    named = [_module(source, module) for module in _list(source, "modules.json", modules)]
    kinds = [kind for kind, _ in named if kind != "Dropout"]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise ExportError(
            f"{source} is made of {', '.join(kinds) or 'nothing'} (modules.json); supported are Transformer "
            "and Pooling, and after them Dense and Normalize."
        )
    folders = [folder for kind, folder in named if kind != "Dropout"]
    transformer = _transformer_config(source, folders[0])
    pooling, include_prompt = _pooling(source, folders[1])
    steps: list[DenseShape | Literal["normalize"]] = []
    state: dict[str, Any] = {}
    for kind, folder in zip(kinds[2:], folders[2:], strict=True):
        if kind == "Normalize":
            steps.append("normalize")
        else:
            dense, weights = _dense(source, folder)
            steps.append(dense)
            state |= weights
    config = _object(source, "config_sentence_transformers.json") or {}
    similarity = _similarity(source, config)
    prompts = _prompts(source, config)
    return SentenceFolder(
        transformer=f"{source}/{folders[0]}" if folders[0] else source,
        pooling=pooling,
        include_prompt=include_prompt,
        steps=tuple(steps),
        state=state,
        similarity=similarity or "cosine",  # the library's default
        similarity_is_said=similarity is not None,
        question_prompt=prompts.get("query", ""),
        passage_prompt=next(filter(None, map(prompts.get, ("document", "passage", "corpus"))), ""),
        max_length=transformer.get("max_seq_length"),
        lower_case=bool(transformer.get("do_lower_case")),
    )


def _module(source: str, module: Any) -> tuple[str, str]:
    """The class and the folder of a module, whose class is the library's own."""
    kind, path = (module.get(name) for name in ("type", "path")) if isinstance(module, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise ExportError(f"{source} has a module without type and path in modules.json; save it again.")
    if not kind.startswith("sentence_transformers."):
        raise ExportError(
            f"{source} brings code of its own ({short_repr(kind)} in modules.json), which is never run; "
            "convert it to modules of sentence-transformers first."
        )
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise ExportError(
            f"{source} names the folder {short_repr(path)} in modules.json; a module lies in its own folder."
        )
    return kind.rpartition(".")[2], path


def _transformer_config(source: str, folder: str) -> dict[str, Any]:
    """`sentence_bert_config.json`, with nothing in it that changes what the transformer computes."""
    found = (_object(source, f"{folder}/{name}" if folder else name) for name in _TRANSFORMER_CONFIGS)
    config = next((content for content in found if content), {})
    for name, value in config.items():
        if name in ("max_seq_length", "do_lower_case", "unpad_inputs") or value in (None, {}, False):
            continue
        if (name, value) in (
            ("transformer_task", "feature-extraction"),
            ("module_output_name", "token_embeddings"),
        ):
            continue
        if name == "modality_config" and value == {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        }:
            continue
        if name in ("model_args", "model_kwargs", "config_args", "config_kwargs") and set(value) <= _LOADING:
            continue
        raise ExportError(
            f"{source} sets {name} to {short_repr(value)} for its transformer, which is not supported: it "
            "would change the vectors."
        )
    longest = config.get("max_seq_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 1):
        raise ExportError(f"{source} has the max_seq_length {short_repr(longest)}; it must be 1 or more.")
    return config


def _pooling(source: str, folder: str) -> tuple[tuple[Pooling, ...], bool]:
    """The poolings in their order, and whether a prompt counts."""
    config = _object(source, f"{folder}/config.json")
    if config is None:
        raise ExportError(f"{source} has no {folder}/config.json, which says how it pools; save it again.")
    modes = config.get("pooling_mode", [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in _POOLINGS for mode in modes):
        raise ExportError(
            f"{source} pools by {short_repr(modes)} ({folder}/config.json); supported are "
            f"{', '.join(_POOLINGS)}."
        )
    return tuple(_POOLINGS[mode] for mode in modes), bool(config.get("include_prompt", True))


def _dense(source: str, folder: str) -> tuple[DenseShape, State]:
    """A linear layer and its weights."""
    config = _object(source, f"{folder}/config.json") or {}
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    sizes: list[Any] = [config.get(size) for size in ("in_features", "out_features")]
    inputs = {config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
    if (
        not activation.startswith("torch.nn.")
        or name not in _ACTIVATIONS
        or config.get("use_residual")
        or inputs != {"sentence_embedding"}
        or not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes)
    ):
        raise ExportError(
            f"{source}: the Dense layer {folder} is {short_repr(config)}; supported are layers of the "
            "sentence's vector without a residual, with one of the activations "
            f"{', '.join(_ACTIVATIONS)}."
        )
    shape = DenseShape(
        name=f"{folder}.linear",
        in_features=sizes[0],
        out_features=sizes[1],
        bias=bool(config.get("bias", True)),
        activation=_ACTIVATIONS[name],
    )
    return shape, {f"{folder}.{key}": values for key, values in _weights(source, folder).items()}


def _weights(source: str, folder: str) -> State:
    path = _file(source, f"{folder}/model.safetensors")
    if path is not None:
        arrays = loaded(source, lambda _: load_file(path))
        return {name: values.astype(np.float32) for name, values in arrays.items()}
    pickled = _file(source, f"{folder}/pytorch_model.bin")
    if pickled is None:
        raise ExportError(f"{source} has no weights for its layer {folder}; save it again.")
    # weights_only: a .bin file is a pickle, and a pickle is a program
    tensors = loaded(source, lambda _: torch.load(pickled, map_location="cpu", weights_only=True))
    return {name: values.float().numpy() for name, values in tensors.items()}


def _similarity(source: str, config: dict[str, Any]) -> Similarity | None:
    """The similarity that the folder says, if it does; and nothing beside it that changes vectors."""
    if config.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise ExportError(
            f"{source} is a {short_repr(config['model_type'])} of sentence-transformers; only a "
            "SentenceTransformer gives a text one vector."
        )
    if config.get("truncate_dim") is not None:
        raise ExportError(
            f"{source} sets truncate_dim to {short_repr(config['truncate_dim'])}, which is not supported; "
            "take it out of config_sentence_transformers.json, or save a Dense layer instead."
        )
    name = config.get("similarity_fn_name")
    if name is not None and name not in _SIMILARITIES:
        raise ExportError(
            f"{source} compares vectors by {short_repr(name)}; supported are {' and '.join(_SIMILARITIES)}."
        )
    return None if name is None else _SIMILARITIES[name]


def _prompts(source: str, config: dict[str, Any]) -> dict[str, str]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        (isinstance(text, str) and text.isprintable()) or text is None
        for text in map(_unbroken, prompts.values())
    ):
        raise ExportError(f"{source} has prompts that are not texts: {short_repr(prompts)}; save it again.")
    return {name: text for name, text in prompts.items() if text}


def _unbroken(text: Any) -> Any:
    """``text`` without line breaks and tabs, which a prompt may have."""
    return text.translate({ord(sign): None for sign in "\n\t"}) if isinstance(text, str) else text


def _object(source: str, name: str) -> dict[str, Any] | None:
    content = _read_json(source, name)
    if content is not None and not isinstance(content, dict):
        raise ExportError(f"{source}: {name} is not a JSON object; save the model again.")
    return content


def _list(source: str, name: str, content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise ExportError(f"{source}: {name} is not a JSON list; save the model again.")
    return content


def _read_json(source: str, name: str) -> Any:
    """The content of a file of the folder; None where there is none."""
    path = _file(source, name)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise ExportError(f"{source}: {name} cannot be read as JSON; save the model again.") from reason


def _file(source: str, name: str) -> str | None:
    """Where a file of a folder or hub name is on this machine; None where there is none."""
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors")}
    found: str | None = loaded(source, lambda place: cached_file(place, name, **quiet))
    return found
