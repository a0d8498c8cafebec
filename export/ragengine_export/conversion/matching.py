"""The state dict of a PyTorch model from weights that another framework named and laid out."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ragengine.errors import ExportError
from ragengine.messages import one_line

Shape: TypeAlias = tuple[int, ...]
Arrays: TypeAlias = dict[str, NDArray[np.float32]]
Reader: TypeAlias = Callable[[Path, Collection[str]], Arrays]

_PARTS: Final = ("rag.question_encoder.", "rag.generator.")
# What the other frameworks' models share whatever the config says, and PyTorch's as the config says: the
# embeddings of both sides, and BART's head.  (T5 has no `model.shared`: its head may be its own.)
_SHARED: Final = (
    (r"(encoder|decoder)\.embed_tokens\.weight$", "shared.weight"),
    (r"lm_head\.weight$", "model.shared.weight"),
)
# What files have and nothing reads: heads of pretraining, the pooler that TensorFlow's DPR once had, and a
# position bias that T5's cross-attention never used.
_UNREAD: Final = re.compile(
    r"(^|\.)(pooler|cls|predictions|vocab_\w+|(discriminator|generator)_predictions|generator_lm_head"
    r"|lm_head\.(dense|layer_norm|bias)|EncDecAttention\.relative_attention_bias)(\.|$)"
)


@dataclass(frozen=True)
class StoredWeight:
    """A weight in a file."""

    file: Path
    path: str
    """What the file calls it."""
    name: str
    """What PyTorch calls it, below any number of scopes."""
    shape: Shape
    """As PyTorch has it."""
    transposed: bool
    """Whether the file has it the other way round."""


@dataclass
class _Target:
    """A weight of the PyTorch model."""

    name: str
    shape: Shape
    tensor: int
    """The same of all weights that are tied."""
    computed: bool
    """Whether the class can make it by itself: Pegasus' and Marian's sinusoids."""
    stored: list[StoredWeight] = field(default_factory=list)


def matched_state(
    source: str,
    model_class: type[PreTrainedModel],
    config: Any,
    stored: Sequence[StoredWeight],
    read: Reader,
    optional: str | None = None,
) -> dict[str, torch.Tensor]:
    """Give every tensor of a model its weight; what is wrong is told before anything is read.

    Args:
        source: the checkpoint, for messages.
        model_class: the PyTorch class.
        config: its config, whose sizes have been checked.
        stored: all weights of all files.
        read: reads some arrays of a file.
        optional: the beginning of names that may be missing.

    Raises:
        ExportError: weights are missing, left over, contradictory or of another shape; all are named at once.
    """
    with torch.device("meta"):
        targets = _targets(model_class(config))
    faults = [*_assign(stored, targets), *_share(targets, optional)]
    arrays: Mapping[Path, Arrays] = {}
    if not faults:
        arrays = _read(targets, read)
        faults = [fault for target in targets for fault in _contradictions(target, arrays)]
    if faults:
        raise ExportError(
            f"The weights of {source} are not those of a {model_class.__name__} of its config.json: "
            f"{'; '.join(faults)}."
        )
    return {
        target.name: torch.from_numpy(_value(target.stored[0], arrays)) for target in targets if target.stored
    }


def _targets(model: PreTrainedModel) -> list[_Target]:
    """The weights and buffers of floats that a model has."""
    return [
        _Target(
            name,
            tuple(tensor.shape),
            id(tensor),
            computed=isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad,
        )
        for name, tensor in model.state_dict(keep_vars=True).items()
        if tensor.is_floating_point()
    ]


def _assign(stored: Sequence[StoredWeight], targets: Sequence[_Target]) -> Iterator[str]:
    """Note with each target what is stored of it; tell what is left over or of another shape."""
    known = _known_names(targets)
    for weight in stored:
        target = next((known[tail] for tail in _tails(weight.name) if tail in known), None)
        if target is None:
            if not _UNREAD.search(weight.name):
                yield f"{one_line(weight.path)} is left over"
            continue
        target.stored.append(weight)
        if weight.shape != target.shape:
            yield f"{target.name} has shape {list(weight.shape)} instead of {list(target.shape)}"


def _known_names(targets: Sequence[_Target]) -> dict[str, _Target]:
    """Targets by their names, and by the name within a part of RAG where only one part has it.

    TensorFlow puts some weights outside of the scope of their part: BART's ``final_logits_bias``.
    """
    inner: defaultdict[str, list[_Target]] = defaultdict(list)
    for target in targets:
        for part in _PARTS:
            if target.name.startswith(part):
                inner[target.name.removeprefix(part)].append(target)
    known = {name: found[0] for name, found in inner.items() if len(found) == 1}
    return known | {target.name: target for target in targets}


def _tails(name: str) -> Iterator[str]:
    """A name without its outermost scopes, the longest first."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _share(targets: Sequence[_Target], optional: str | None) -> Iterator[str]:
    """Give targets that are stored nowhere what they share with others; tell what is missing then.

    Tied weights that are both stored are left as they are: transformers unties them if they differ.
    """
    by_name = {target.name: target for target in targets if target.stored}
    by_tensor = {target.tensor: target for target in targets if target.stored}
    for target in targets:
        if target.stored:
            continue
        names = (re.sub(pattern, shared, target.name) for pattern, shared in _SHARED)
        owners = (*map(by_name.get, names), by_tensor.get(target.tensor))
        owner = next((owner for owner in owners if owner and owner.shape == target.shape), None)
        if owner:
            target.stored = owner.stored
        elif not target.computed and not (optional and target.name.startswith(optional)):
            yield f"{target.name} is missing"


def _read(targets: Sequence[_Target], read: Reader) -> dict[Path, Arrays]:
    paths: defaultdict[Path, set[str]] = defaultdict(set)
    for target in targets:
        for weight in target.stored:
            paths[weight.file].add(weight.path)
    return {file: read(file, paths[file]) for file in paths}


def _contradictions(target: _Target, arrays: Mapping[Path, Arrays]) -> Iterator[str]:
    """Tell where a weight is stored more than once (T5's embedding is, thrice) with different values."""
    for other in target.stored[1:]:
        if not np.array_equal(_value(target.stored[0], arrays), _value(other, arrays), equal_nan=True):
            yield f"{one_line(other.path)} and {one_line(target.stored[0].path)} differ and are one weight"


def _value(weight: StoredWeight, arrays: Mapping[Path, Arrays]) -> NDArray[np.float32]:
    array = arrays[weight.file][weight.path]
    return np.ascontiguousarray(array.T if weight.transposed else array)
