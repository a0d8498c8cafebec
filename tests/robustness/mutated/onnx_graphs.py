"""Forged graphs with matching hashes: external data, exchanged graphs, nodes changed one by one.

onnxruntime opens and runs what the bundle's checks accept.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, numpy_helper

from tests.robustness.children import Case
from tests.robustness.mutated.asking import check_engine
from tests.robustness.mutated.damage import check_damaged, drawing, instead
from tests.support.paths import GOLDEN

Edit: TypeAlias = Callable[[onnx.GraphProto], object]

GRAPHS = ["question_encoder/encoder.onnx"]
GRAPHS += [f"generator/{name}.onnx" for name in ("encoder", "cross", "decoder")]
LOCATIONS = ["", "..", "/etc/passwd", "../../etc/passwd", "../question_encoder/weights.bin", "weights.bin/"]
LOCATIONS += [
    "./weights.bin",
    "weights.bin/../../x",
    "none.bin",
    "*/_ORT_MEM_ADDR_/*",
    "x" * 5000,
    "w\0",
    "linked",
]
NUMBERS = [-1, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, 10**30]
_NODE_EDITS = 160
"""Changed nodes in the default run."""


def prepare(base: Path) -> None:
    shutil.copytree(GOLDEN / "bundle_v4", base / "bundle")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    bundle = base / "bundle"
    for name in GRAPHS:
        for location in LOCATIONS:
            run = _check_forged(bundle, name, partial(_edited, partial(_external, "location", location)))
            yield Case(f"{name}: weights in {location:.40}", run, "refused", mentions=name)
        for key, number in itertools.product(("offset", "length"), NUMBERS):
            run = _check_forged(bundle, name, partial(_edited, partial(_external, key, str(number))))
            yield Case(f"{name}: weights of {key} {number}", run, "refused", mentions=name)
        # ONNX allows overlapping weights
        yield Case(
            f"{name}: weights over each other", _check_forged(bundle, name, partial(_edited, _overlap))
        )
        for part in range(10 if not exhaustive else 200):
            yield Case(
                f"{name}: cut at {part}",
                _check_forged(bundle, name, partial(_cut, part / (200 if exhaustive else 10))),
                "refused",
            )
    for name, other in itertools.permutations(GRAPHS, 2):
        run = _check_forged(bundle, name, partial(instead, (bundle / other).read_bytes()))
        yield Case(f"{other} as {name}", run, "refused", mentions=name)
    edits = [(name, what, edit) for name in GRAPHS for what, edit in _node_edits(bundle / name)]
    if not exhaustive:
        edits = drawing(1).sample(edits, _NODE_EDITS)
    for name, what, edit in edits:
        yield Case(f"{name}: {what}", _check_forged(bundle, name, partial(_edited, edit)))


def _check_forged(bundle: Path, name: str, forge: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return partial(check_damaged, bundle, name, forge, _check_bundle)


def _node_edits(path: Path) -> Iterator[tuple[str, Edit]]:
    """Every node with one part removed or changed; every small constant with other numbers."""
    graph = onnx.load(str(path), load_external_data=False).graph
    operators = sorted({node.op_type for node in graph.node})
    drawn = drawing(path.name)
    names = [output for node in graph.node for output in node.output] + [t.name for t in graph.initializer]
    for place, node in enumerate(graph.node):
        where = f"node {place} {node.op_type}"
        yield f"{where} removed", partial(_remove_node, place)
        yield f"{where} becomes {(other := drawn.choice(operators))}", partial(_set, place, "op_type", other)
        for number, _ in enumerate(node.input):
            yield f"{where} input {number} emptied", partial(_set_input, place, number, "")
            yield (
                f"{where} input {number} is {(name := drawn.choice(names))}",
                partial(_set_input, place, number, name),
            )
        if len(node.input) > 1:
            yield f"{where} inputs turned", partial(_turn_inputs, place)
            yield f"{where} last input gone", lambda g, p=place: g.node[p].input.pop()
        for number, attribute in enumerate(node.attribute):
            yield f"{where} without {attribute.name}", lambda g, p=place, n=number: g.node[p].attribute.pop(n)
            for value in _other_values(attribute):
                yield (
                    f"{where} {attribute.name}={value!s:.30}",
                    partial(_set_attribute, place, number, value),
                )
    for number, tensor in enumerate(graph.initializer):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield f"{tensor.name} turned over", partial(_turn_dimensions, number)
            continue
        for fill in (0, -1, 1, 2**31, 2**62, -(2**63)):
            yield f"{tensor.name} is {fill}", partial(_fill, number, fill)
        yield f"{tensor.name} has one more", partial(_longer, number)


def _other_values(attribute: AttributeProto) -> list[Any]:
    if attribute.type == AttributeProto.INT:
        return [0, -1, 1, 7, 2**31, 2**63 - 1, -(2**63), "text", 1.5]
    if attribute.type == AttributeProto.FLOAT:
        return [0.0, float("nan"), float("inf"), -1e30, 3]
    if attribute.type == AttributeProto.INTS:
        return [[], [0], [0, 0], [-1], [2**62] * 3, [5, 4, 3, 2, 1, 0]]
    if attribute.type == AttributeProto.TENSOR:
        return [np.array([v], np.int64) for v in (0, -1, 2**62)] + [np.zeros((0,), np.float32)]
    return ["", "x" * 1000]


def _set_attribute(place: int, number: int, value: Any, graph: onnx.GraphProto) -> None:
    attribute = graph.node[place].attribute[number]
    if isinstance(value, list) and not value:  # of an empty list the helper cannot tell the type
        made = AttributeProto(name=attribute.name, type=AttributeProto.INTS)
    else:
        tensor = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        made = onnx.helper.make_attribute(attribute.name, tensor)
    attribute.CopyFrom(made)


def _set(place: int, field: str, value: str, graph: onnx.GraphProto) -> None:
    setattr(graph.node[place], field, value)


def _remove_node(place: int, graph: onnx.GraphProto) -> None:
    del graph.node[place]


def _set_input(place: int, number: int, name: str, graph: onnx.GraphProto) -> None:
    graph.node[place].input[number] = name


def _turn_inputs(place: int, graph: onnx.GraphProto) -> None:
    graph.node[place].input[:] = list(graph.node[place].input)[::-1]


def _turn_dimensions(number: int, graph: onnx.GraphProto) -> None:
    graph.initializer[number].dims[:] = list(graph.initializer[number].dims)[::-1]


def _fill(number: int, value: int, graph: onnx.GraphProto) -> None:
    tensor = graph.initializer[number]
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind in "iu":
        value = max(min(value, np.iinfo(array.dtype).max), np.iinfo(array.dtype).min)
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, value), tensor.name))


def _longer(number: int, graph: onnx.GraphProto) -> None:
    tensor = graph.initializer[number]
    array = np.atleast_1d(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(np.concatenate([array, array]), tensor.name))


def _external(key: str, value: str, graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value


def _overlap(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = "0"


def _edited(edit: Edit, content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    edit(model.graph)
    edited: bytes = model.SerializeToString()
    return edited


def _cut(part: float, content: bytes) -> bytes:
    return content[: int(len(content) * part)]


def _check_bundle(bundle: Path) -> None:
    (bundle / "generator" / "linked").symlink_to("weights.bin")
    check_engine(bundle)
