"""Synthetic vectors."""

from pathlib import Path

import numpy as np
import pytest

from ragengine_bench.index import command as command
from ragengine_bench.index.synthetic_vectors import Clusters

COUNT, DIMENSION = 3000, 32


def test_vectors_are_clustered_and_questions_are_not_among_them(tmp_path: Path) -> None:
    clusters = Clusters(COUNT, DIMENSION)
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


def test_vectors_are_the_same_for_every_number_of_threads(tmp_path: Path) -> None:
    clusters, count = Clusters(40_000, 8), 40_000  # three blocks
    one, several = (clusters.write(tmp_path / f"{n}.npy", count, n) for n in (1, 3))
    np.testing.assert_array_equal(one, several)
