"""The structure of an ``.onnx`` file, read before onnxruntime sees a byte of it (and without onnx).

An ONNX graph can name other files: every tensor, wherever it is, may say that its numbers are "external", in
a file at a path, at an offset (or, to onnxruntime, at an address of memory).  :func:`read_graph` finds them
all; :func:`external_data_errors` names those that are not plainly a part of a listed file beside the graph.

The graphs that ragengine writes have no functions, no training info and only operators of ONNX and
onnxruntime, so a file with anything else is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from ragengine.bundle.onnx_schema import SCHEMA
from ragengine.bundle.protobuf import Message, WireError, decode
from ragengine.storage.foreign_files import read_plain
from ragengine.storage.schema import Parsed

MAX_BYTES: Final = 64 << 20
"""The largest graph that is read, in bytes: weights are in other files, and without them graphs have 1 MB."""
DOMAINS = ("", "ai.onnx", "com.microsoft")
"""The domains of operators that onnxruntime itself implements for inference."""

FLOAT, UINT8, INT64, BOOL, FLOAT16 = 1, 2, 7, 9, 10
TYPE_NAMES = {FLOAT: "float32", UINT8: "uint8", INT64: "int64", BOOL: "bool", FLOAT16: "float16"}
_CONTRIB = "com.microsoft"
_MAX_ATTRIBUTE = (1 << 31) - 1  # an axis, a number of heads, a size
_EXTERNAL = 1  # of TensorProto.DataLocation
_MAX_INT64 = (1 << 63) - 1
_MOST_AXES = 16
# Bits of an element by TensorProto.DataType; text (8) and the types left out have no fixed size.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128}
_BITS |= {16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
_TEXT = 8


@dataclass(frozen=True)
class Value:
    """An input or output: its TensorProto.DataType, and its axes, an int or a symbol each.

    ``axes`` is None where the file leaves them open.
    """

    data_type: int
    axes: tuple[int | str, ...] | None


@dataclass(frozen=True)
class ExternalData:
    """Where the numbers of a tensor are: ``length`` bytes at ``offset`` of the file ``location``."""

    tensor: str
    location: str
    offset: int
    length: int


@dataclass(frozen=True)
class Graph:
    """The outside of an ONNX graph, and every file that any part of it refers to.

    ``initializers`` are the dimensions of the main graph's constant tensors, by name.
    """

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    initializers: Mapping[str, tuple[int, ...]]
    external: tuple[ExternalData, ...]


def read_graph(path: Path) -> Parsed[Graph]:
    """Read an ``.onnx`` file; never raises for what is in it.

    Returns:
        The graph, or everything that is wrong with the file, each the end of a sentence.
    """
    try:
        model = decode(SCHEMA, "Model", read_plain(path, MAX_BYTES))
        if "graph" not in model:
            raise WireError("there is none in it")
        (main,) = model["graph"]
        nodes = list(_nodes(main))
        tensors = list(_tensors(main, nodes))
        graph = _graph_of(main, tensors)
        errors = (*_refused_parts(model, nodes), *_tensor_errors(tensors))
    except (OSError, ValueError) as reason:  # WireError is a ValueError
        return Parsed(None, (f"it cannot be read as a graph: {reason}",))
    return Parsed(None, errors) if errors else Parsed(graph)


def external_data_errors(graph: Graph, sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with a graph's references to other files.

    Args:
        graph: what :func:`read_graph` returned.
        sizes: the files of the graph's folder that the manifest lists, by name, in bytes; only these may be
            referred to, and by their plain names.
    """
    errors = []
    for data in graph.external:
        size = sizes.get(data.location)
        where = f"tensor {data.tensor!a:.80} is in {data.location!a:.120}"
        if size is None:
            errors.append(f"{where}, which the manifest does not list in this folder")
        elif data.offset + data.length > size:
            errors.append(f"{where} at {data.offset} to {data.offset + data.length}, which has {size} bytes")
    return errors


def _graph_of(graph: Message, tensors: list[Message]) -> Graph:
    return Graph(
        inputs=_values(graph.get("input", []), "input"),
        outputs=_values(graph.get("output", []), "output"),
        initializers={_text(t, "name"): tuple(t.get("dims", ())) for t in graph.get("initializer", [])},
        external=tuple(_external_data(t) for t in tensors if "external_data" in t),
    )


def _values(values: list[Message], kind: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for value in values:
        name = _text(value, "name")
        if name in found:
            raise WireError(f"two {kind}s are called {name!a:.80}")
        for tensor in (t for kinds in value.get("type", []) for t in kinds.get("tensor_type", [])):
            (data_type,) = tensor.get("elem_type", [0])
            axes = [tuple(map(_axis, shape.get("dim", []))) for shape in tensor.get("shape", [])]
            found[name] = Value(data_type, axes[0] if axes else None)
        if name not in found:
            raise WireError(f"the {kind} {name!a:.80} is not a tensor")
    return found


def _axis(dimension: Message) -> int | str:
    if "dim_value" in dimension and "dim_param" in dimension:
        raise WireError("an axis has both a size and a symbol")
    (value,) = dimension.get("dim_value", [None])
    return _text(dimension, "dim_param") if value is None else int(value)


def _refused_parts(model: Message, nodes: list[Message]) -> Iterator[str]:
    """Parts that no graph of ragengine has, and operators that onnxruntime itself does not implement."""
    yield from (
        f"it has {part.replace('_', ' ')}" for part in ("functions", "training_info") if part in model
    )
    imported = {_text(opset, "domain") for opset in model.get("opset_import", [])}
    used = {_text(node, "domain") for node in nodes if "domain" in node}
    for domain in sorted((imported | used) - set(DOMAINS)):
        yield f"it has operators of the domain {domain!a:.80}; only ONNX's and com.microsoft's are run"
    yield from _node_errors(nodes)
    names = [_text(t, "name") for t in model["graph"][0].get("initializer", [])]
    if len(names) > len(set(names)):
        yield "two initializers have one name"


def _node_errors(nodes: list[Message]) -> Iterator[str]:
    """What onnxruntime 1.31 accepts when it opens a graph and then crashes on."""
    if any(b"" in node.get("input", []) and _text(node, "domain") != _CONTRIB for node in nodes):
        yield "an input of one of ONNX's own operators is left out"  # Max reads it nevertheless
    attributes = [attribute for node in nodes for attribute in node.get("attribute", [])]
    numbers = (number for a in attributes for number in (*a.get("i", []), *a.get("ints", [])))
    for number in (number for number in numbers if abs(number) > _MAX_ATTRIBUTE):
        yield f"an operator has the attribute {number}"  # GatherND does not check its batch_dims


def _tensor_errors(tensors: list[Message]) -> Iterator[str]:
    """Tensors that hold more or fewer numbers than their dimensions say."""
    for tensor in tensors:
        name = f"tensor {_text(tensor, 'name')!a:.80}"
        dims = tensor.get("dims", [])
        (data_type,) = tensor.get("data_type", [0])
        if data_type not in _BITS and data_type != _TEXT:
            yield f"{name} has the unknown data type {data_type}"
        elif len(dims) > _MOST_AXES or any(not 0 <= size <= _MAX_INT64 for size in dims):
            yield f"{name} has the dimensions {dims!s:.200}"
        elif "segment" in tensor:
            yield f"{name} is a segment"
        elif ("external_data" in tensor) != (tensor.get("data_location") == [_EXTERNAL]):
            yield f"{name} is marked as both inside and outside of this file"
        else:
            yield from _size_errors(tensor, name, dims, data_type)


def _size_errors(tensor: Message, name: str, dims: list[int], data_type: int) -> Iterator[str]:
    wanted = -(-prod(dims) * _BITS.get(data_type, 8) // 8)  # bytes; a text has at least one, its length
    if "external_data" in tensor:
        length = _external_data(tensor).length
        if length != wanted or data_type == _TEXT:
            yield f"{name} has {length} bytes outside of this file, its dimensions {dims} make {wanted}"
    elif "raw_data" in tensor:
        (raw,) = tensor["raw_data"]
        if len(raw) != wanted or data_type == _TEXT:
            yield f"{name} has {len(raw)} bytes, its dimensions {dims} make {wanted}"
    elif prod(dims) > 8 * tensor["bytes"][0]:  # small numbers may be packed, eight to a byte at the most
        yield f"{name} has {tensor['bytes'][0]} bytes, too few for the dimensions {dims}"


def _external_data(tensor: Message) -> ExternalData:
    """The entries of a tensor's ``external_data``; the further keys that onnxruntime knows are refused."""
    entries: dict[str, str] = {}
    name = _text(tensor, "name")
    for entry in tensor["external_data"]:
        key, value = _text(entry, "key"), _text(entry, "value")
        if key in entries or key not in ("location", "offset", "length"):
            raise WireError(
                f"tensor {name!a:.80} has the external data key {key!a:.80}, which is unknown or repeated"
            )
        entries[key] = value
    if "location" not in entries or "length" not in entries:
        raise WireError(f"tensor {name!a:.80} has external data without location or length")
    offset, length = (_whole(entries.get(key, "0"), name, key) for key in ("offset", "length"))
    return ExternalData(name, entries["location"], offset, length)


def _whole(text: str, name: str, key: str) -> int:
    """A number written plainly: libraries read ``-1``, ``0x10`` and ``1e3`` each in their own way."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_INT64):
        raise WireError(f"tensor {name!a:.80} has the external data {key} {text!a:.80}")
    return int(text)


def _nodes(graph: Message) -> Iterator[Message]:
    """The nodes of a graph and of all graphs in their attributes."""
    for node in graph.get("node", []):
        yield node
        for inner in _inner_graphs(node):
            yield from _nodes(inner)


def _inner_graphs(node: Message) -> Iterator[Message]:
    for attribute in node.get("attribute", []):
        yield from attribute.get("g", [])
        yield from attribute.get("graphs", [])


def _tensors(graph: Message, nodes: list[Message]) -> Iterator[Message]:
    """Every tensor: of the graph, of graphs inside it, of attributes, and the parts of sparse ones."""
    sparse: list[Message] = []
    for each in (graph, *(inner for node in nodes for inner in _inner_graphs(node))):
        yield from each.get("initializer", [])
        sparse += each.get("sparse_initializer", [])
    for attribute in (attribute for node in nodes for attribute in node.get("attribute", [])):
        yield from attribute.get("t", [])
        yield from attribute.get("tensors", [])
        sparse += [*attribute.get("sparse_tensor", []), *attribute.get("sparse_tensors", [])]
    for tensor in sparse:
        yield from tensor.get("values", [])
        yield from tensor.get("indices", [])


def _text(message: Message, field: str) -> str:
    (value,) = message.get(field, [b""])
    return str(value, "utf-8")
