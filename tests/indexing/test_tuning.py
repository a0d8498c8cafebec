"""Tuning: the cheapest settings that reach the recall, which is measured as it is said to be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragengine.errors import InputError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest
from tests.support.bundles import Array, E, brute_force, random_vectors


def recall_by_numpy(index: PassageIndex, vectors: Array) -> float:
    """Recall@5 of each stored vector's neighbours other than itself."""
    questions = vectors.astype(np.float32)
    exact, _ = brute_force(vectors, questions, len(vectors))
    found = index.search(questions, 6).rows
    hits = 0
    for row in range(len(vectors)):
        nearest = [other for other in exact[row] if other != row][:5]
        hits += len(set(nearest) & set([other for other in found[row] if other != row][:5]))
    return hits / (5 * len(vectors))


@pytest.mark.parametrize("factory", ["IVF8,Flat", "SQfp16", "HNSW8", "PCA4,Flat"])
def test_recall_in_the_manifest_is_the_recall(build: Callable[..., Path], factory: str) -> None:
    vectors = random_vectors(250)  # fewer than the sample of queries, so that both look at the same ones
    path = build(vectors, factory=factory, recall=0.8)
    with PassageIndex.open(path) as index:
        assert index.manifest.recall == pytest.approx(
            recall_by_numpy(index, vectors.astype(np.float16)), abs=1e-3
        )
        index.verify()


def test_nprobe_is_raised_no_further_than_needed(build: Callable[..., Path]) -> None:
    vectors = random_vectors(250)
    manifests = [IndexManifest.read(build(vectors, factory="IVF16,Flat", recall=r)) for r in (0.1, 0.7, 1.0)]
    probes = [manifest.search["nprobe"] for manifest in manifests]
    recalls = [manifest.recall for manifest in manifests]
    assert probes == sorted(set(probes))
    assert probes[0] == 1
    assert probes[-1] <= 16
    assert recalls[-1] == 1.0
    for wanted, reached in zip((0.1, 0.7, 1.0), recalls, strict=True):
        assert reached is not None
        assert reached >= wanted


def test_recall_of_too_few_passages_cannot_be_measured(build: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="cannot be measured on 5 passages; use the factory Flat"):
        build(random_vectors(5), factory="IVF1,Flat")


@pytest.mark.parametrize(
    "factory", ["IVF16,Flat", "OPQ4_8,IVF16,PQ4x4", "PQ4x4", "HNSW8", "IVF16,PQ4x4,RFlat"]
)
def test_tuning_finds_the_cheapest_settings_that_reach_the_recall(
    build: Callable[..., Path], factory: str
) -> None:
    manifest = IndexManifest.read(build(random_vectors(3000), factory=factory, recall=0.9))
    tuning = manifest.tuning
    assert tuning is not None
    assert manifest.recall is not None
    assert (tuning.target, tuning.n_docs, tuning.queries, tuning.source) == (0.9, 5, 1000, "passages")
    assert manifest.recall >= 0.9
    chosen = next(point for point in tuning.points if point.search == manifest.search)
    assert chosen.recall == pytest.approx(manifest.recall, abs=0.002)  # as searched and as foretold
    assert all(point.recall < 0.9 for point in tuning.points if point.cost < chosen.cost)


def test_recall_is_that_of_given_questions(tmp_path: Path, build: Callable[..., Path]) -> None:
    vectors, questions = random_vectors(2000), random_vectors(300, seed=9) * 3
    np.save(tmp_path / "queries.npy", questions)
    path = build(vectors, factory="IVF16,PQ4x4", recall=0.85, queries=tmp_path / "queries.npy")
    with PassageIndex.open(path) as index:
        tuning = index.manifest.tuning
        assert tuning is not None
        assert (tuning.source, tuning.queries) == ("file", 300)
        rows, _ = brute_force(vectors.astype(np.float16), questions, 5)
        found = index.search(questions, 5).rows
        hits = (found[:, :, None] == rows[:, None, :]).sum() / rows.size
        assert index.manifest.recall == pytest.approx(hits, abs=1e-6)
        index.verify()


def test_recall_where_most_passages_are_the_same(build: Callable[..., Path]) -> None:
    # More equally good passages than exact search remembers: any of them counts as found.
    vectors = random_vectors(40)[np.random.default_rng(0).integers(0, 40, 2000)]
    manifest = IndexManifest.read(build(vectors, factory="IVF4,Flat", recall=0.99))
    assert manifest.recall is not None
    assert manifest.recall >= 0.99
    assert manifest.search["nprobe"] < 4


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (random_vectors(3, E + 1), r"holds vectors \[3, 9\]; one or more of 8 were expected"),
        (random_vectors(3)[:0], r"holds vectors \[0, 8\]"),
        (np.array([[0.0] * E, [np.inf] * E], np.float32), "question vector 1 has NaN or infinite"),
        (np.zeros((3, E)), "holds float64"),
    ],
)
def test_wrong_questions_are_named(
    tmp_path: Path, build: Callable[..., Path], queries: Array, message: str
) -> None:
    np.save(tmp_path / "queries.npy", queries)
    with pytest.raises(InputError, match=message):
        build(random_vectors(20), factory="IVF2,Flat", queries=tmp_path / "queries.npy")
