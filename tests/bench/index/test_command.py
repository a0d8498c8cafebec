"""`ragengine bench index`: the vectors it makes, the figures it gives, and what an interrupt leaves."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.retrieval.recall import RecallTest
from ragengine_bench.index import command as command
from ragengine_bench.index.methods import METHODS, factory_of, measure_method
from ragengine_bench.index.synthetic_vectors import Clusters

COUNT, DIMENSION = 3000, 32


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return Clusters(COUNT, DIMENSION)


def test_vectors_are_clustered_and_questions_are_not_among_them(clusters: Clusters, tmp_path: Path) -> None:
    vectors = clusters.write(tmp_path / "a.npy", COUNT)
    assert (vectors.dtype, vectors.shape) == (np.float16, (COUNT, DIMENSION))
    np.testing.assert_array_equal(vectors, Clusters(COUNT, DIMENSION).write(tmp_path / "b.npy", COUNT))
    wide = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(wide, axis=1)
    assert norms.mean() == pytest.approx(9, rel=0.02)
    assert 0.03 < norms.std() / norms.mean() < 0.07
    cosines = np.sort((wide / norms[:, None]) @ (wide / norms[:, None]).T, axis=1)
    random = np.random.default_rng(0).standard_normal((COUNT, DIMENSION))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    isotropic = np.sort(random @ random.T, axis=1)
    # The nearest five are nearer in comparison with the rest than among independent numbers.
    contrast = [((1 - c[:, COUNT // 2]) / (1 - c[:, -6:-1].mean(1))).mean() for c in (cosines, isotropic)]
    assert contrast[0] > 1.3 * contrast[1]
    questions = clusters.questions(200)
    assert not (questions.astype(np.float16)[:, None] == vectors[None]).all(-1).any()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_built_and_measured(clusters: Clusters, tmp_path: Path, method: str) -> None:
    vectors = clusters.write(tmp_path / "vectors.npy", COUNT)
    test = RecallTest.of_questions(vectors, clusters.questions(40))
    result = measure_method(method, vectors, test, tmp_path, 1, lambda line: None)
    assert (result.factory, result.count) == (factory_of(method, COUNT, DIMENSION), COUNT)
    assert max(point.recall for point in result.points) >= 0.95
    for point in result.points:
        assert 0 <= point.recall_before <= point.recall + 1e-9 <= 1 + 1e-9
        assert 0 < point.median_ms <= point.p99_ms
        assert point.batch_qps > 0
    keeps_vectors = method in ("flat", "ivf", "hnsw")
    assert (result.bytes_per_vector >= 4 * DIMENSION) == keeps_vectors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vectors.npy"]


def test_the_factories_are_those_of_a_million_vectors() -> None:
    assert factory_of("opq-ivf-pq", 1_000_000, 768) == "OPQ96_384,IVF4096,PQ96"
    assert factory_of("ivf", 10_000, 128) == "IVF512,Flat"


def test_the_command_prints_reports_and_plots(tmp_path: Path) -> None:
    arguments = ["--vectors", "2000", "--dimension", "16", "--queries", "20", "--threads", "1"]
    arguments += ["--method", "flat", "--method", "opq-ivf-pq", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(command.index_bench, arguments)
    assert result.exit_code == 0, result.output
    assert "x flat" in result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["methods"]] == ["flat", "opq-ivf-pq"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "recall.png",
        "recall.svg",
        "report.json",
    ]


def test_a_terminated_run_keeps_what_was_measured(tmp_path: Path) -> None:
    arguments = ["--vectors", "30000", "--dimension", "64", "--queries", "20", "--threads", "1"]
    arguments += ["--method", "flat", "--method", "hnsw", "--output", str(tmp_path / "out")]
    program = "from ragengine_bench.index.command import index_bench; index_bench()"
    (tmp_path / "work").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--work", str(tmp_path / "work")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("HNSW16: adding"):
            child.send_signal(signal.SIGTERM)
            break
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "interrupted" in said
    assert "Flat, 30,000 vectors" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["methods"]] == ["flat"]
    assert not list((tmp_path / "work").iterdir())


def test_options_that_need_each_other(tmp_path: Path) -> None:
    result = CliRunner().invoke(command.index_bench, ["--bundle", str(tmp_path)])
    assert result.exit_code == 2
    assert "need --index" in result.output
