"""The weights of a bundle, by the names of the graphs and by those of transformers' networks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ragengine.errors import ExportError
from ragengine_export.weights import State


def graph_weights(graphs: Iterable[Path]) -> State:
    """Every weight of these graphs by name, float32: float16 loses nothing by it.

    Args:
        graphs: `.onnx` files in fp32 or fp16 whose bundle has been checked.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for graph in graphs:
        for name, value in ir.load(graph).graph.initializers.items():
            if name not in weights and isinstance(value.const_value, ir.ExternalTensor):
                weights[name] = value.const_value.numpy().astype(np.float32)
    return weights


def network_state(
    name: str, network: Any, config: Any, graph_name: Callable[[str], str], weights: State
) -> dict[str, NDArray[np.float32]]:
    """The weights of a network as its checkpoint holds them: tied ones once.

    Args:
        name: whose it is, for messages.
        network: the class of transformers.
        config: its config.
        graph_name: what a weight of the network is called in the graph.
        weights: those of the graph.

    Returns:
        The weights by the network's names.  Those that no graph reads are zero (a pooler whose vector is not
        used, a bias of the logits without an entry) or a copy (see :func:`_unread`).

    Raises:
        ExportError: the graph lacks a weight that the network needs, or one has another shape.
    """
    with torch.device("meta"):
        model = network(config)
    state: dict[str, NDArray[np.float32]] = {}
    lacking = []
    shapes = {
        key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if tensor.is_floating_point()
    }
    for group in _tied(model, shapes):
        found = {key: weights[graph_name(key)] for key in group if graph_name(key) in weights}
        if not found:
            unread = _unread(group[0], shapes[group[0]], weights)
            if unread is None:
                lacking.append(group[0])
            else:
                state[group[0]] = unread
            continue
        first = next(iter(found.values()))
        if all(np.array_equal(first, other) for other in found.values()):
            state[group[0]] = first
        else:  # tied by the class's own habit, and not in this checkpoint
            state |= {key: found.get(key, first) for key in group}
    lacking += [key for key, values in state.items() if values.shape != shapes[key]]
    if lacking:
        raise ExportError(
            f"The graphs of {name} do not have the weights of a {network.__name__}: {', '.join(lacking[:5])} "
            "missing or of another shape; unpack a bundle that ragengine export has written."
        )
    return state


def _tied(model: Any, names: Iterable[str]) -> Iterator[list[str]]:
    """The names of the weights, those of one tensor together, the head of the generator last."""
    groups: dict[int, list[str]] = defaultdict(list)
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
    for name in names:
        groups[id(tensors[name])].append(name)
    for group in groups.values():
        yield sorted(group, key=lambda name: name.startswith("lm_head"))


def _unread(name: str, shape: tuple[int, ...], weights: State) -> NDArray[np.float32] | None:
    """A weight that a graph may lack, since nothing is computed with it; None for any other.

    A generator whose tables are not tied has one that is shared by neither side, as large as the encoder's.
    """
    if name.startswith("pooler.") or name == "final_logits_bias":
        return np.zeros(shape, np.float32)
    if name.endswith("shared.weight"):
        return weights.get(name.replace("shared.weight", "encoder.embed_tokens.weight"))
    return None
