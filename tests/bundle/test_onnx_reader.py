"""The reader of ``.onnx`` files: what it finds is what the onnx package finds, and nothing makes it fall."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from ragengine.bundle import onnx_reader
from ragengine.bundle.onnx_reader import ExternalData, Graph, Value, external_data_errors, read_graph
from tests.support.paths import GOLDEN, WORLDFACTS

GRAPHS = sorted((GOLDEN / "bundle_v2").rglob("*.onnx"))
WORLDFACTS_BUNDLE = WORLDFACTS / "bundle"
SMALL = (GOLDEN / "bundle_v2" / "generator" / "cross.onnx").read_bytes()
FAR = (1 << 63) - 1


def refused(path: Path) -> str:
    """The one error of a file."""
    parsed = read_graph(path)
    assert parsed.value is None
    (error,) = parsed.errors
    return error


# What the onnx package finds, with its own eyes.


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                yield from (sparse.values, sparse.indices)
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from tensors_of(inner)


def outside(values: list[onnx.ValueInfoProto]) -> dict[str, Value]:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        axes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
        found[value.name] = Value(tensor.elem_type, axes if tensor.HasField("shape") else None)
    return found


def by_onnx(path: Path) -> Graph:
    graph = onnx.load(str(path), load_external_data=False).graph
    external = []
    for tensor in tensors_of(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(entries.get("offset", 0)), int(entries["length"])
            external.append(ExternalData(tensor.name, entries["location"], offset, length))
    return Graph(
        inputs=outside(list(graph.input)),
        outputs=outside(list(graph.output)),
        initializers={tensor.name: tuple(tensor.dims) for tensor in graph.initializer},
        external=tuple(external),
    )


@pytest.mark.parametrize("path", [*GRAPHS, *sorted(WORLDFACTS_BUNDLE.rglob("*.onnx"))], ids=lambda p: p.name)
def test_real_graphs_are_read_as_onnx_reads_them(path: Path) -> None:
    graph = read_graph(path).value
    assert graph == by_onnx(path)
    assert graph is not None
    sizes = {file.name: file.stat().st_size for file in path.parent.iterdir()}
    assert external_data_errors(graph, sizes) == []


# Whatever the bytes are.


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(SMALL)),
)
def test_a_changed_graph_is_read_as_onnx_reads_it_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(SMALL)
    for place, byte in changes:
        data[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    for content in (bytes(data), bytes(data[:end])):
        path.write_bytes(content)
        parsed = read_graph(path)
        assert (parsed.value is None) == bool(parsed.errors)
        if parsed.value is not None:
            with contextlib.suppress(DecodeError):  # in a skipped field, which no library reads
                assert parsed.value == by_onnx(path)


# Graphs that somebody made.


def tensor(name: str = "w", **entries: object) -> TensorProto:
    """An external float32 [2, 3]; entries that are None are left out."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3])
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": 0, "length": 24, **entries}.items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


def model(*initializers: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("Identity", ["x"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph([node, *nodes], "g", [value], [result], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def hide(where: str, secret: TensorProto) -> ModelProto:
    """A model that holds ``secret`` in one of the places where a tensor can be."""
    inner = helper.make_graph([], "inner", [], [], [secret])
    deeper = helper.make_graph([helper.make_node("If", [], [], else_branch=inner)], "deeper", [], [])
    sparse = onnx.SparseTensorProto(values=secret, indices=secret, dims=[2, 3])
    attribute: dict[str, object] = {
        "attribute": secret,
        "attributes": [secret],
        "subgraph": inner,
        "subgraph of a subgraph": deeper,
        "subgraphs": [inner],
        "sparse attribute": sparse,
        "sparse attributes": [sparse],
    }
    if where == "initializer":
        return model(secret)
    if where == "sparse initializer":
        made = model()
        made.graph.sparse_initializer.append(sparse)
        return made
    return model(nodes=(helper.make_node("If", ["x"], [], value=attribute[where]),))


PLACES = ["initializer", "sparse initializer", "attribute", "attributes", "subgraph"]
PLACES += ["subgraph of a subgraph", "subgraphs", "sparse attribute", "sparse attributes"]


@pytest.mark.parametrize("where", PLACES)
def test_external_data_is_found_wherever_it_is(tmp_path: Path, where: str) -> None:
    made = hide(where, tensor("secret", location="../../etc/passwd"))
    (tmp_path / "a.onnx").write_bytes(made.SerializeToString())
    graph = read_graph(tmp_path / "a.onnx").value
    assert graph is not None
    assert {data.location for data in graph.external} == {"../../etc/passwd"}
    for error in external_data_errors(graph, {"weights.bin": 24, "a.onnx": 100}):
        assert error == (
            "tensor 'secret' is in '../../etc/passwd', which the manifest does not list in this folder"
        )


LOCATIONS = ["", ".", "..", "/etc/passwd", "../weights.bin", "./weights.bin", "sub/weights.bin"]
LOCATIONS += ["sub\\weights.bin", "weights.bin\0", "weights.bin/", "WEIGHTS.BIN", " weights.bin", "x" * 5000]
LOCATIONS += ["file:///weights.bin", "*/_ORT_MEM_ADDR_/*"]  # the last makes the offset an address of memory


@pytest.mark.parametrize("location", LOCATIONS)
def test_only_a_listed_file_beside_the_graph_may_be_named(tmp_path: Path, location: str) -> None:
    (tmp_path / "a.onnx").write_bytes(model(tensor(location=location)).SerializeToString())
    graph = read_graph(tmp_path / "a.onnx").value
    assert graph is not None
    (error,) = external_data_errors(graph, {"weights.bin": 24, "a.onnx": 100})
    assert "does not list" in error
    assert len(error) < 300


@pytest.mark.parametrize(("offset", "size"), [(0, 23), (1, 24), (1 << 40, 24), (FAR, 24)])
def test_data_beyond_the_file_is_refused(tmp_path: Path, offset: int, size: int) -> None:
    (tmp_path / "a.onnx").write_bytes(model(tensor(offset=offset)).SerializeToString())
    graph = read_graph(tmp_path / "a.onnx").value
    assert graph is not None
    (error,) = external_data_errors(graph, {"weights.bin": size})
    assert error == f"tensor 'w' is in 'weights.bin' at {offset} to {offset + 24}, which has {size} bytes"


BAD_TENSORS: dict[str, tuple[Callable[[], TensorProto], str]] = {
    "a negative offset": (lambda: tensor(offset=-1), "offset '-1'"),
    "an offset of many digits": (lambda: tensor(offset=10**30), "external data offset"),
    "an offset above int64": (lambda: tensor(offset=FAR + 1), "external data offset"),
    "a hexadecimal offset": (lambda: tensor(offset="0x10"), "offset '0x10'"),
    "a signed length": (lambda: tensor(length="+24"), r"length '\+24'"),
    "digits of another script": (lambda: tensor(length="٢٤"), "external data length"),
    "an empty length": (lambda: tensor(length=""), "length ''"),
    "no length": (lambda: tensor(length=None), "without location or length"),
    "no location": (lambda: tensor(location=None), "without location or length"),
    "a key of onnxruntime's": (lambda: tensor(prepacked_0="x"), "key 'prepacked_0'"),
    "another length": (lambda: tensor(length=20), "has 20 bytes outside of this file, .* make 24"),
    "negative dimensions": (lambda: with_dims(-2, -3), r"dimensions \[-2, -3\]"),
    "too many dimensions": (lambda: with_dims(*[FAR] * 200_000), "has the dimensions"),
    "dimensions that overflow": (lambda: with_dims(1 << 33, 1 << 33), "its dimensions"),
    "an unknown type": (lambda: with_type(99), "unknown data type 99"),
    "texts": (lambda: with_type(TensorProto.STRING), "outside of this file"),
    "both inside and outside": (lambda: inside(tensor()), "both inside and outside"),
    "too few bytes": (
        lambda: numpy_helper_tensor(dims=[2, 4]),
        r"has 24 bytes, its dimensions \[2, 4\] make 32",
    ),
    "a billion from nothing": (
        lambda: TensorProto(name="w", data_type=1, dims=[10**9]),
        "too few for the dimensions",
    ),
}


def with_dims(*dims: int) -> TensorProto:
    made = tensor()
    made.dims[:] = dims
    return made


def with_type(data_type: int) -> TensorProto:
    made = tensor()
    made.data_type = data_type
    return made


def inside(made: TensorProto) -> TensorProto:
    made.data_location = TensorProto.DEFAULT
    return made


def numpy_helper_tensor(dims: list[int]) -> TensorProto:
    made = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
    made.dims[:] = dims
    return made


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_do_not_add_up_are_refused(tmp_path: Path, case: str) -> None:
    make, message = BAD_TENSORS[case]
    (tmp_path / "a.onnx").write_bytes(model(make()).SerializeToString())
    error = refused(tmp_path / "a.onnx")
    assert re.search(message, error), error
    assert len(error) < 300


def test_a_key_of_external_data_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    """Libraries differ in which of the two they take."""
    twice = tensor()
    twice.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "a.onnx").write_bytes(model(twice).SerializeToString())
    assert "key 'location', which is unknown or repeated" in refused(tmp_path / "a.onnx")


def with_function() -> ModelProto:
    made = model()
    made.functions.add(name="Identity", domain="ai.onnx")
    return made


def with_training() -> ModelProto:
    made = model()
    made.training_info.add().algorithm.initializer.append(tensor(location="/etc/passwd"))
    return made


def with_domain(domain: str) -> ModelProto:
    made = model()
    made.graph.node[0].domain = domain
    return made


def with_domain_inside() -> ModelProto:
    inner = helper.make_graph([helper.make_node("Run", [], [], domain="com.example")], "inner", [], [])
    return model(nodes=(helper.make_node("If", ["x"], [], then_branch=inner),))


def with_import(domain: str) -> ModelProto:
    made = model()
    made.opset_import.add(domain=domain, version=1)
    return made


def with_two_inputs_of_one_name() -> ModelProto:
    made = model()
    made.graph.input.append(made.graph.input[0])
    return made


def with_a_sequence() -> ModelProto:
    made = model()
    made.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    return made


MODELS: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "functions": (with_function, "it has functions"),
    "training info": (with_training, "it has training info"),
    "a custom operator": (lambda: with_domain("ai.onnx.contrib"), "the domain 'ai.onnx.contrib'"),
    "a custom operator in a subgraph": (with_domain_inside, "the domain 'com.example'"),
    "a custom import": (lambda: with_import("local"), "the domain 'local'"),
    "a long domain": (lambda: with_import("x" * 10_000), "the domain 'xxx"),
    "two initializers of one name": (lambda: model(tensor(), tensor()), "two initializers have one name"),
    "two inputs of one name": (with_two_inputs_of_one_name, "two inputs are called 'x'"),
    "a sequence as input": (with_a_sequence, "the input 'x' is not a tensor"),
    "no graph": (ModelProto, "there is none in it"),
    "an input left out, which crashes onnxruntime": (
        lambda: model(nodes=(helper.make_node("Max", ["x", ""], ["z"]),)),
        "an input of one of ONNX's own operators is left out",
    ),
    "an attribute that crashes onnxruntime": (
        lambda: model(nodes=(helper.make_node("GatherND", ["x", "x"], ["z"], batch_dims=-(2**63)),)),
        "an operator has the attribute -9223372036854775808",
    ),
    "numbers of an attribute": (
        lambda: model(nodes=(helper.make_node("Transpose", ["x"], ["z"], perm=[0, 2**40]),)),
        "an operator has the attribute 1099511627776",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_we_never_write_are_refused(tmp_path: Path, case: str) -> None:
    make, message = MODELS[case]
    (tmp_path / "a.onnx").write_bytes(make().SerializeToString())
    error = refused(tmp_path / "a.onnx")
    assert message in error
    assert len(error) < 300


def test_all_errors_of_a_file_are_listed(tmp_path: Path) -> None:
    made = model(with_dims(5), with_type(99))
    made.functions.add()
    made.graph.node[0].domain = "com.example"
    (tmp_path / "a.onnx").write_bytes(made.SerializeToString())
    errors = read_graph(tmp_path / "a.onnx").errors
    assert len(errors) == 5  # two tensors of one name are the fifth


def test_what_is_no_plain_file_of_a_sensible_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(onnx_reader.MAX_BYTES + 1)  # takes no space
    assert f"has {onnx_reader.MAX_BYTES + 1} bytes, more than the" in refused(tmp_path / "large.onnx")
    (tmp_path / "link.onnx").symlink_to(GRAPHS[0])
    assert "not a plain file" in refused(tmp_path / "link.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")  # would never answer
    assert "not a plain file" in refused(tmp_path / "pipe.onnx")
    assert "No such file" in refused(tmp_path / "absent.onnx")
