"""Sessions of onnxruntime: their options, what is refused, and how failures are named."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from ragengine.errors import BundleError, GraphOutputError, InputError
from ragengine.runtime import sessions
from ragengine.runtime.probe_graph import PROBE_GRAPH
from ragengine.runtime.processor import available_cores
from ragengine.runtime.sessions import MOST_THREADS, create_session

X = np.array([-2], np.float32)


@pytest.fixture
def session() -> ort.InferenceSession:
    return create_session(PROBE_GRAPH, device="cpu", threads=1)


def test_threads_are_those_asked_for_or_the_cores(session: ort.InferenceSession) -> None:
    assert session.get_session_options().intra_op_num_threads == 1
    every = create_session(PROBE_GRAPH, device="cpu", threads=None)
    assert every.get_session_options().intra_op_num_threads == available_cores()


@pytest.mark.parametrize("threads", [0, -1, MOST_THREADS + 1, True, 1.0, "2"])
def test_threads_are_a_whole_number_in_range(threads: Any) -> None:
    with pytest.raises(
        InputError, match=r"^threads is .*; it must be a whole number from 1 to 1024, or None"
    ):
        create_session(PROBE_GRAPH, device="cpu", threads=threads)


def test_low_memory_keeps_no_arena(session: ort.InferenceSession) -> None:
    low = create_session(PROBE_GRAPH, device="cpu", threads=1, low_memory=True).get_session_options()
    assert (low.enable_cpu_mem_arena, low.enable_mem_pattern) == (False, False)
    assert session.get_session_options().enable_cpu_mem_arena


@pytest.mark.parametrize(("overflow", "setting"), [(True, "1"), (False, None)])
def test_without_vnni_int8_products_are_exact(
    monkeypatch: pytest.MonkeyPatch, overflow: bool, setting: str | None
) -> None:
    monkeypatch.setattr(sessions, "int8_products_overflow", lambda: overflow)
    options = create_session(PROBE_GRAPH, device="cpu", threads=1).get_session_options()
    if setting is None:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")
    else:
        assert options.get_session_config_entry("session.x64quantprecision") == setting


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(
        BundleError, match=r"a\.onnx cannot be opened by onnxruntime .*; export the bundle again"
    ):
        create_session(tmp_path / "a.onnx", device="cpu", threads=1)


def test_arrays_and_bound_values_give_the_same(session: ort.InferenceSession) -> None:
    assert sessions.run_arrays(session, {"x": X}, "y") == 2
    outputs = sessions.run_bound(session, {"x": sessions.to_device(X, "cpu")}, {"y": "cpu"})
    assert outputs["y"].numpy() == 2


def test_a_part_of_memory_is_bound(session: ort.InferenceSession) -> None:
    source = sessions.to_device(np.array([-1, -2, -3], np.float32), "cpu")
    target = sessions.to_device(np.zeros(3, np.float32), "cpu")
    binding = session.io_binding()
    sessions.bind_memory(binding.bind_input, "x", source, "cpu", shape=(1,), offset=8)
    sessions.bind_memory(binding.bind_output, "y", target, "cpu", shape=(1,), offset=4)
    sessions.run_binding(session, binding)
    assert target.numpy().tolist() == [0, 3, 0]


def test_what_a_graph_cannot_compute_is_a_typed_error(session: ort.InferenceSession) -> None:
    with pytest.raises(GraphOutputError, match=r"^onnxruntime .* could not compute a graph of the bundle: "):
        sessions.run_arrays(session, {"x": np.zeros((2, 2), np.float32)}, "y")
