"""Filling inverted lists through a file of codes: FAISS's own bytes, and no list larger than it will be."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import InputError, PassagesError
from ragengine.indexing import inverted_lists, training, vector_sources
from ragengine.indexing.build import build_index
from ragengine.indexing.inverted_lists import fill_lists, write_codes
from ragengine.indexing.plan import TRAINING_VECTORS, memory_needed, plan_index
from ragengine.retrieval.faiss_api import has_plain_lists
from ragengine.runtime.progress import silent
from tests.support.bundles import E, random_vectors, write_bundle

FACTORIES = [
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16,PQ2x4",
    "OPQ2_4,IVF16,PQ2x4",
    "PCA4,IVF300,Flat",
    "IVF16_HNSW8,Flat",
]
FILES = ["index.faiss", "vectors.npy", "passages.sqlite"]


def _trained(factory: str, vectors: Any) -> Any:
    index = training.empty_faiss_index(factory, vectors.shape[1])
    training.train(index, vectors, factory, 0, 1, silent)
    return index


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("first", [0, 700])
def test_the_index_is_the_one_that_faiss_fills(
    tmp_path: Path, factory: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_lists, "ROWS_AT_ONCE", 256)
    vectors = random_vectors(2000).astype(np.float16)
    ours = _trained(factory, vectors)
    assert has_plain_lists(ours)
    if first:
        ours.add(vectors[:first].astype(np.float32))
    theirs = faiss.clone_index(ours)
    theirs.add(vectors[first:].astype(np.float32))
    write_codes(ours, vectors, tmp_path / "codes.npy", 0, silent, lambda file: None)
    fill_lists(ours, tmp_path / "codes.npy")
    np.testing.assert_array_equal(faiss.serialize_index(ours), faiss.serialize_index(theirs))


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF4,PQ2x4fs", "IVF4,PQ2x4,RFlat", "PQ2x4"])
def test_other_kinds_are_filled_by_faiss(factory: str) -> None:
    assert not has_plain_lists(training.empty_faiss_index(factory, E))


@pytest.mark.parametrize("done", [0, 256, 1024])
def test_codes_that_are_written_already_are_kept(
    tmp_path: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_lists, "ROWS_AT_ONCE", 256)
    vectors = random_vectors(1500).astype(np.float16)
    index = _trained("IVF16,PQ2x4", vectors)
    write_codes(index, vectors, tmp_path / "whole.npy", 0, silent, lambda file: None)

    def killed(file: vector_sources.VectorFile) -> None:
        if file.done > done:
            raise KeyboardInterrupt

    path = tmp_path / "codes.npy"
    with pytest.raises(KeyboardInterrupt):
        write_codes(index, vectors, path, 0, silent, killed)
    reported: list[int] = []
    write_codes(index, vectors, path, done, lambda n, total: reported.append(n), lambda file: None)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert reported[0] == done + 256


CHILD = """
import os, signal, sys
from ragengine.indexing import inverted_lists, writer
from ragengine.indexing.build import build_index
from tests.indexing.test_inverted_lists import vectors_from
inverted_lists.ROWS_AT_ONCE = 256
writer._SAVE_SECONDS = 0.0
passages, index, bundle, phase, at = sys.argv[1:]

def kill(now, done, total):
    if now == phase and total and done >= int(at):
        os.kill(os.getpid(), signal.SIGKILL)

build_index(passages, index, bundle=bundle, embeddings=vectors_from, factory="IVF16,PQ2x4", recall=0.01,
    threads=1, progress=kill)
"""
ROWS = 3000


def vectors_from(row: int) -> Any:
    """All vectors from a row on, in blocks that do not begin with that row's."""
    vectors = random_vectors(ROWS)
    return (vectors[max(start, row) : start + 500] for start in range(row // 500 * 500, ROWS, 500))


@pytest.mark.parametrize(("phase", "at"), [("vectors", 1500), ("add", 1000), ("add", ROWS)])
def test_a_killed_build_goes_on_and_is_the_same(tmp_path: Path, phase: str, at: int) -> None:
    folder = write_bundle(tmp_path / "bundle", E)
    passages = tmp_path / "p.tsv"
    passages.write_text("id\ttext\ttitle\n" + "".join(f"{row}\tx\tt\n" for row in range(ROWS)))
    options: dict[str, Any] = {
        "bundle": folder, "factory": "IVF16,PQ2x4", "recall": 0.01, "threads": 1
    }  # fmt: skip
    build_index(passages, tmp_path / "whole", embeddings=vectors_from, **options)
    index = tmp_path / "index"
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, passages, index, folder, phase, str(at)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    asked: list[int] = []

    def noted(row: int) -> Any:
        asked.append(row)
        return vectors_from(row)

    first: dict[str, int] = {}

    def progress(now: str, done: int, total: int | None) -> None:
        if total:
            first.setdefault(now, done)

    build_index(passages, index, embeddings=noted, resume=True, progress=progress, **options)
    for name in FILES:
        assert (index / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    if phase == "vectors":
        assert asked
        assert asked[0] >= 1000
    else:
        assert not asked  # every vector was stored
        assert first.get("add", ROWS) >= min(at, 768)
    assert not (tmp_path / ".index.writing" / "codes.npy").exists()


def test_embeddings_of_a_function_are_those_of_a_file(tmp_path: Path, build: Callable[..., Path]) -> None:
    vectors = random_vectors(700)
    by_file = build(vectors, factory="IVF4,Flat", recall=0.01)
    for dtype in (np.float32, np.float16, np.float64):
        given = [vectors[:300].astype(dtype), vectors[300:].astype(dtype)]
        build_index(
            tmp_path / "passages.jsonl",
            tmp_path / "other",
            bundle=tmp_path / "bundle",
            embeddings=lambda row, given=given: iter(given),
            factory="IVF4,Flat",
            recall=0.01,
        )
        for name in FILES:
            assert (by_file / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        ([random_vectors(10)], PassagesError, "function of the program has only 10 vectors for 20 passages"),
        ([random_vectors(21)], PassagesError, "function of the program has more vectors for 20 passages"),
        (
            [random_vectors(20, E + 1)],
            PassagesError,
            f"vectors of {E + 1} numbers, the bundle's encoder gives {E}",
        ),
        ([[[1.0] * E] * 20], InputError, r"gave \[\[.*; it must yield arrays of floating-point numbers"),
        ([np.ones(E, np.float32)], InputError, "it must yield arrays of floating-point numbers"),
        ([np.ones((20, E), np.int32)], InputError, "it must yield arrays of floating-point numbers"),
    ],
)
def test_wrong_embeddings_of_a_function(
    build: Callable[..., Path], blocks: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(random_vectors(20), embeddings=lambda row: iter(blocks))


def test_the_sample_is_transformed_in_blocks_and_transforms_learn_of_65536_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(training, "TRANSFORM_VECTORS", 500)
    vectors = random_vectors(1000).astype(np.float16)
    index = training.empty_faiss_index("PCA4,IVF8,Flat", E)
    training.train(index, vectors, "PCA4,IVF8,Flat", 0, 1, silent)
    pca = faiss.PCAMatrix(E, 4)
    pca.train(vectors[::2].astype(np.float32))
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    np.testing.assert_array_equal(faiss.vector_to_array(transform.A), faiss.vector_to_array(pca.A))
    lists = faiss.index_factory(4, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    lists.train(pca.apply(vectors.astype(np.float32)))
    ours = faiss.downcast_index(faiss.extract_index_ivf(index).quantizer).reconstruct_n(0, 8)
    theirs = faiss.downcast_index(lists.quantizer).reconstruct_n(0, 8)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_paper_s_index_is_built_in_less_than_three_gib() -> None:
    assert TRAINING_VECTORS == 65536
    index = training.empty_faiss_index(plan_index(21_015_300, 768).factory, 768)
    assert 2.5 * 2**30 < memory_needed(index, 21_015_300, 768) < 3 * 2**30
