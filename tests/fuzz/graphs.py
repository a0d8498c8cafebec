"""Fuzz the wire-format reader of ONNX graphs and the checks of their external data."""

import atheris

from tests.support.paths import GOLDEN

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.bundle.onnx_reader import external_data_errors, read_graph

from pathlib import Path

from tests.fuzz.fuzzing import fuzz


def read_graph_file(folder: Path, data: bytes) -> None:
    """Errors are returned, never raised."""
    path = folder / "graph.onnx"
    path.write_bytes(data)
    parsed = read_graph(path)
    assert (parsed.value is None) == bool(parsed.errors)
    if parsed.value is not None:
        external_data_errors(parsed.value, {"weights.bin": 100_000})


if __name__ == "__main__":
    fuzz(read_graph_file, [path.read_bytes() for path in sorted((GOLDEN / "bundle_v4").glob("*/*.onnx"))])
