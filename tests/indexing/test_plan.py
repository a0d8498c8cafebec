"""What is planned before a build: the factory, and the room that it needs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus.corpus import Corpus
from ragengine.errors import IndexFolderError
from ragengine.indexing import resources
from ragengine.indexing.plan import (
    FLAT_LIMIT,
    bytes_per_vector,
    disk_needed,
    memory_needed,
    plan_index,
    training_count,
)
from ragengine.indexing.training import empty_faiss_index
from ragengine.retrieval.gpu.placement import GPU_SUBQUANTIZERS
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime import memory
from tests.support.bundles import E, random_vectors
from tests.support.memory import peak_bytes


@given(count=st.integers(1, 10**8), dimension=st.integers(1, 2048))
def test_every_plan_is_one_that_faiss_and_its_gpu_code_take(count: int, dimension: int) -> None:
    plan = plan_index(count, dimension)
    index = empty_faiss_index(plan.factory, dimension)
    if count < FLAT_LIMIT:
        assert isinstance(index, faiss.IndexFlat)
        return
    inverted_lists = faiss.extract_index_ivf(index)
    assert isinstance(faiss.downcast_index(inverted_lists.quantizer), faiss.IndexFlat)
    assert 2 * np.sqrt(count) < inverted_lists.nlist < 8 * np.sqrt(count)
    assert training_count(index, count) >= 39 * inverted_lists.nlist  # else faiss warns
    if dimension >= 4:
        coder = faiss.downcast_index(inverted_lists)
        assert coder.pq.M in GPU_SUBQUANTIZERS
        assert coder.pq.dsub == 4
        assert bytes_per_vector(index) <= 96 + 8


@pytest.mark.parametrize(
    ("count", "dimension", "factory"),
    [
        (49_999, 768, "Flat"),
        (50_000, 128, "OPQ32_128,IVF1024,PQ32"),
        (1_000_000, 768, "OPQ96_384,IVF4096,PQ96"),
        (21_015_324, 768, "OPQ96_384,IVF16384,PQ96"),
        (1_000_000, 3, "IVF4096,Flat"),
    ],
)
def test_plans(count: int, dimension: int, factory: str) -> None:
    assert plan_index(count, dimension).factory == factory


def test_a_million_vectors_take_at_most_120_bytes_each() -> None:
    index = empty_faiss_index(plan_index(1_000_000, 768).factory, 768)
    whole = faiss.extract_index_ivf(index)
    learnt = 4 * (768 * 384 + whole.nlist * whole.d + 256 * whole.d)  # rotation, lists, codes
    assert bytes_per_vector(index) + learnt / 1_000_000 <= 120


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF4,Flat", "PCA4,SQ8", "OPQ2_4,IVF4,PQ2x4", "HNSW8", "IVF4,PQ2x4,RFlat"]
)
def test_bytes_a_vector_are_those_of_the_file(build: Callable[..., Path], factory: str) -> None:
    sizes = []
    for count in (500, 2500):
        path = build(random_vectors(count), factory=factory)
        sizes.append((path / "index.faiss").stat().st_size)
    per_vector = (sizes[1] - sizes[0]) / 2000
    assert bytes_per_vector(empty_faiss_index(factory, E)) == pytest.approx(per_vector, rel=0.08)


def test_no_room_on_disk_is_said_before_anything_is_written(
    tmp_path: Path, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: os.terminal_size((1, 1000)))
    monkeypatch.setattr(os.terminal_size, "free", property(lambda size: size.lines), raising=False)
    with pytest.raises(
        IndexFolderError, match=r"needs about .* MiB of disk, .* has 0\.0 MiB free; make room"
    ):
        build(random_vectors(300))
    assert not (tmp_path / "index").exists()


def test_no_memory_is_said_before_anything_is_written(
    tmp_path: Path, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9999 kB\nMemAvailable: 2048 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    with pytest.raises(
        IndexFolderError, match=r"'Flat' needs up to .* of memory, 2\.0 MiB are available here"
    ):
        build(random_vectors(300))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("name", ["passages.tsv", "passages.jsonl", "text"])
def test_passages_are_estimated(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = [f"word{row % 7} " * 100 for row in range(3000)]
    if name == "text":
        path.mkdir()
        (path / "a.txt").write_text("\n".join(lines))
    elif name == "passages.tsv":
        path.write_text(
            "id\ttext\ttitle\n" + "".join(f"{row}\t{text}\tt\n" for row, text in enumerate(lines))
        )
    else:
        path.write_text("".join(f'{{"title": "t", "text": "{text}"}}\n' for text in lines))
    assert Corpus.open(path).estimate() == pytest.approx(3000, rel=0.25)


IMPORT = "from ragengine.indexing import build"
BUILD = """
passages, index, bundle, embeddings = sys.argv[1:]
build.build_index(passages, index, bundle=bundle, embeddings=embeddings, factory="IVF64,PQ8x4",
    recall=0.01, threads=1)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc")
def test_memory_does_not_grow_with_the_corpus_but_by_its_codes(tmp_path: Path) -> None:
    from tests.support.bundles import write_bundle

    dimension = 64
    bundle = write_bundle(tmp_path / "wide", dimension)
    used = {}
    for count in (70_000, 210_000):
        (tmp_path / "p.tsv").write_text(
            "id\ttext\ttitle\n" + "".join(f"{row}\t{'word ' * 20}\tt\n" for row in range(count))
        )
        np.save(tmp_path / "v.npy", random_vectors(count, dimension))
        arguments: list[Any] = [tmp_path / "p.tsv", tmp_path / f"index{count}", bundle, tmp_path / "v.npy"]
        used[count] = peak_bytes(IMPORT, BUILD, *arguments)
        index = empty_faiss_index("IVF64,PQ8x4", dimension)
        assert used[count] < memory_needed(index, count, dimension)
    kept = bytes_per_vector(index) * 140_000
    vectors, texts = dimension * 2 * 140_000, 105 * 140_000
    grown = used[210_000] - used[70_000]
    assert grown < 3 * kept + (8 << 20)
    assert grown < (vectors + texts) / 2  # neither is held in memory
    manifest = IndexManifest.read(tmp_path / "index210000")
    need = disk_needed(index, 210_000, dimension, (tmp_path / "p.tsv").stat().st_size)
    assert sum(entry.size for entry in manifest.files.values()) < need * 1.2
