"""The corpus of a scale run: the same vectors from any row on, those of ``ragengine bench index``."""

from pathlib import Path

import numpy as np
import pytest

from ragengine.corpus.corpus import Corpus
from ragengine_bench.index.scale.data import ScaleData
from ragengine_bench.index.synthetic_vectors import BLOCK, Clusters

COUNT, DIMENSION = 2 * BLOCK + 100, 8


@pytest.mark.parametrize("first", [0, 5, BLOCK, BLOCK + 1, 2 * BLOCK + 99, COUNT])
def test_vectors_from_any_row_on(first: int, tmp_path: Path) -> None:
    stored = Clusters(COUNT, DIMENSION).write(tmp_path / "vectors.npy", COUNT)
    blocks = list(ScaleData(COUNT, DIMENSION, threads=2).embeddings(first))
    vectors = np.concatenate([np.empty((0, DIMENSION), np.float32), *blocks])
    np.testing.assert_array_equal(vectors.astype(np.float16), stored[first:])


def test_passages(tmp_path: Path) -> None:
    ScaleData(120, DIMENSION).write_passages(tmp_path / "passages.tsv")
    passages = list(Corpus.open(tmp_path / "passages.tsv").read())
    assert len({passage.id for passage in passages}) == 120
    assert passages[7].text == "Passage 7 of a synthetic corpus."
