"""Scoring candidates on a device: the graph, run on the CPU, and the memory that it reads from."""

import os
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.errors import DeviceError, IndexFolderError
from ragengine.retrieval.gpu import rescoring, rescoring_graph
from ragengine.retrieval.gpu.placement import Placement
from ragengine.retrieval.gpu.rescoring import DeviceVectors
from ragengine.retrieval.gpu.search_worker import SearchWorker
from ragengine.retrieval.gpu.searcher import device_vectors
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, random_vectors
from tests.support.paths import ROOT

N, WIDE = 700, 24
STORED = random_vectors(N, WIDE).astype(np.float16)


def test_the_graph_in_the_package_is_what_the_script_makes() -> None:
    made = rescoring_graph.make_graph()
    onnx.checker.check_model(made, full_check=True)
    assert onnx.load(rescoring_graph.PATH) == made


def test_the_graph_is_package_data() -> None:
    """A wheel has the file: setuptools packs what pyproject.toml names."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert rescoring_graph.PATH.suffix == ".onnx"
    assert f"*{rescoring_graph.PATH.suffix}" in tools["package-data"]["*"]


def index(factory: str, stored: Array = STORED) -> VectorIndex:
    return VectorIndex(_faiss_index(factory, stored.tobytes(), stored.shape[1]), stored, 20.0, {})


@cache
def _faiss_index(factory: str, stored_bytes: bytes, dimension: int) -> Any:
    stored = np.frombuffer(stored_bytes, np.float16).reshape(-1, dimension)
    wide = stored.astype(np.float32)
    faiss_index = faiss.index_factory(stored.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(wide)
    faiss_index.add(wide)
    return faiss_index


def on_device(factory: str, stored: Array = STORED) -> VectorIndex:
    """The index searched and scored as on a GPU, in the memory of the CPU."""
    made = index(factory, stored)
    copy = faiss.clone_index(made.faiss_index)
    worker = SearchWorker(lambda q, width, nprobe: copy.search(q, width), most_selected=2048)
    made.search_with(worker, DeviceVectors(stored, cuda_device=None))
    return made


@given(
    seed=st.integers(0, 2**32),
    questions=st.integers(0, 9),
    width=st.integers(1, 60),
    scale=st.integers(-3, 2),
)
def test_scores_are_those_of_the_host(seed: int, questions: int, width: int, scale: int) -> None:
    random = np.random.default_rng(seed)
    asked = (random.standard_normal((questions, WIDE)) * 10.0**scale).astype(np.float32)
    rows = random.integers(0, N, (questions, width))
    scores = DeviceVectors(STORED, cuda_device=None).scores(asked, rows)
    host = index("Flat")
    expected = np.array([host.exact_scores(q, r) for q, r in zip(asked, rows, strict=True)], np.float32)
    np.testing.assert_array_max_ulp(scores, expected.reshape(scores.shape), maxulp=1)


def test_many_questions_are_scored_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, rows = random_vectors(50, WIDE, seed=3), np.random.default_rng(0).integers(0, N, (50, 40))
    vectors = DeviceVectors(STORED, cuda_device=None)
    together = vectors.scores(asked, rows)
    parts: list[int] = []
    score = vectors._run

    def noted(questions: Array, *arguments: Any) -> Any:
        parts.append(len(questions))
        return score(questions, *arguments)

    monkeypatch.setattr(vectors, "_run", noted)
    for at_once, expected in ((3, [3] * 16 + [2]), (50, [50])):
        parts.clear()
        monkeypatch.setattr(rescoring, "_COMPONENTS_AT_ONCE", at_once * 40 * WIDE)
        np.testing.assert_array_equal(vectors.scores(asked, rows), together)
        assert parts == expected


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "PQ8x4", "IVF40,Flat"])
@pytest.mark.parametrize("n_docs", [1, 5, 100])
def test_the_same_documents_are_found(factory: str, n_docs: int) -> None:
    asked = random_vectors(30, WIDE, seed=1)
    expected = index(factory).search(asked, n_docs, rerank_width=50)
    served = on_device(factory)
    found = served.search(asked, n_docs, rerank_width=50)
    np.testing.assert_array_equal(found.rows, expected.rows)  # -1 where one list holds fewer, too
    np.testing.assert_array_max_ulp(found.scores, expected.scores, maxulp=1)
    served.close()
    if factory == "IVF40,Flat" and n_docs == 100:
        assert (found.rows == -1).any()


def test_ties_come_in_the_order_of_rows() -> None:
    stored = np.repeat(random_vectors(7, 4), 30, axis=0).astype(np.float16)
    served = on_device("Flat", stored)
    found = served.search(random_vectors(5, 4, seed=2), 45)
    assert (np.diff(found.rows[:, :30], axis=1) == 1).all()
    served.close()


def test_rows_that_are_not_there_are_damage() -> None:
    whole = index("Flat")
    short = VectorIndex(whole.faiss_index, STORED[:10], whole.max_norm, {})
    worker = SearchWorker(lambda q, width, nprobe: whole.faiss_index.search(q, width), most_selected=99)
    short.search_with(worker, DeviceVectors(STORED[:10], cuda_device=None))
    with pytest.raises(IndexFolderError, match="the stored vectors are 10; build the index again"):
        short.search(random_vectors(1, WIDE), 5)
    short.close()


def proposing(rows: list[int], stored: Array = STORED) -> VectorIndex:
    """An index whose FAISS index, forged, proposes these rows for every question."""
    made = index("IVF8,Flat", stored)
    candidates = np.array([rows])

    def search(questions: Array, width: int, nprobe: int | None) -> tuple[Array, Array]:
        found = candidates.repeat(len(questions), axis=0)
        return np.zeros(found.shape, np.float32), found

    made.search_with(SearchWorker(search, most_selected=99), DeviceVectors(stored, cuda_device=None))
    return made


def test_rows_that_a_forged_list_repeats_are_found_once() -> None:
    asked, forged = random_vectors(3, WIDE, seed=5), proposing([9, 4, 7, 4, 7, 0, -1, 7, 0])
    found = forged.search(asked, 6)
    forged.close()
    for question, rows, scores in zip(asked, found.rows, found.scores, strict=True):
        assert sorted(rows[:4].tolist()) == [0, 4, 7, 9]
        exact = index("Flat").exact_scores(question, rows[:4])
        np.testing.assert_array_max_ulp(scores[:4], exact, maxulp=1)
        assert (np.diff(scores[:4]) <= 0).all()
        assert rows[4:].tolist() == [-1, -1]
        assert scores[4:].tolist() == [-np.inf, -np.inf]


def test_fewer_candidates_than_documents_leave_the_rest_empty() -> None:
    forged = proposing([5, 3])
    found = forged.search(random_vectors(2, WIDE), 4)
    forged.close()
    assert [sorted(row[:2]) for row in found.rows.tolist()] == [[3, 5], [3, 5]]
    assert (found.rows[:, 2:] == -1).all()
    assert (found.scores[:, 2:] == -np.inf).all()


def test_no_questions_have_no_documents() -> None:
    served = on_device("IVF8,Flat")
    found = served.search(random_vectors(0, WIDE), 3)
    served.close()
    assert found.rows.shape == found.scores.shape == (0, 3)


def test_vectors_that_are_not_finite_are_damage() -> None:
    stored = STORED.copy()
    stored[3, 5] = np.nan
    damaged = VectorIndex(index("Flat").faiss_index, stored, 20.0, {})
    worker = SearchWorker(lambda q, width, nprobe: damaged.faiss_index.search(q, width), most_selected=N)
    damaged.search_with(worker, DeviceVectors(stored, cuda_device=None))
    with pytest.raises(IndexFolderError, match="stored vector of row 3 has NaN or infinite components"):
        damaged.search(STORED[3:4].astype(np.float32), 5)
    damaged.close()


# --- CUDA ---------------------------------------------------------------------------------------------


def test_where_vectors_cannot_be_copied_the_host_scores(caplog: pytest.LogCaptureFixture) -> None:
    try:
        DeviceVectors(STORED, cuda_device=0)
    except DeviceError:
        with caplog.at_level("INFO", "ragengine"):
            assert device_vectors(STORED, Placement("gpu", "a test", vectors_bytes=STORED.nbytes)) is None
        assert "Candidates are scored on the host: device is cuda, but" in caplog.text
    assert device_vectors(STORED, Placement("gpu", "a test")) is None


DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static int retained, current, synchronised;
static int context;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int number) { *device = number + 7; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int device) { retained++; *c = &context; return device != 8; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return device != 8; }
int cuCtxPushCurrent_v2(void *c) { current += c == &context; return c != &context; }
int cuCtxPopCurrent_v2(void **c) { current--; *c = &context; return 0; }
int cuMemAlloc_v2(uint64_t *at, size_t size) {
    if (!current) return 201;
    if (size > 1 << 20) return 2;
    *at = (uint64_t)malloc(size);
    return 0;
}
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) {
    if (!current) return 201;
    memcpy((void *)to, from, size);
    synchronised = 0;
    return 0;
}
int cuCtxSynchronize(void) { synchronised = current; return 0; }
int was_synchronised(void) { return synchronised; }
int cuMemFree_v2(uint64_t at) { if (!current) return 201; free((void *)at); return 0; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "?";
    return 0;
}
int held(void) { return retained; }
"""

CHILD = """
import ctypes, numpy as np
from ragengine.errors import DeviceError
from ragengine.retrieval.gpu import rescoring, rescoring_graph
from ragengine.runtime.cuda_driver import DeviceMemory

rescoring._ROWS_AT_ONCE = 100
stored = np.random.default_rng(0).standard_normal((730, 24)).astype(np.float16)
held = ctypes.CDLL("libcuda.so.1").held
memory = rescoring._uploaded(stored, 1)
assert held() == 1 and ctypes.CDLL("libcuda.so.1").was_synchronised()
copied = ctypes.string_at(memory.pointer, stored.nbytes)
assert copied == stored.tobytes()
del memory
assert held() == 0
try:
    DeviceMemory((1 << 20) + 1, 1)
except DeviceError as error:
    assert "cuMemAlloc_v2 failed with 2 (CUDA_ERROR_OUT_OF_MEMORY)" in str(error), error
else:
    raise AssertionError("too much was given")
assert held() == 0
print("done")
"""


def test_device_memory_is_written_and_given_back(tmp_path: Path) -> None:
    """With a driver of our own, whose device is the CPU's memory and which wants a current context."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stdout == "done\n", child.stderr
