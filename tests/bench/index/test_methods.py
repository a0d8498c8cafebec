"""Every way to index, built and measured."""

from pathlib import Path

import pytest

from ragengine.retrieval.recall import RecallTest
from ragengine_bench.index import command as command
from ragengine_bench.index.command import METHODS
from ragengine_bench.index.methods import factory_of, measure_method
from ragengine_bench.index.synthetic_vectors import Clusters

COUNT, DIMENSION = 3000, 32


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_built_and_measured(tmp_path: Path, method: str) -> None:
    clusters = Clusters(COUNT, DIMENSION)
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
