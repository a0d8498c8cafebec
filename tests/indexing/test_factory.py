"""Factory strings: what is built works to the end, and nothing else is handed to FAISS."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.errors import InputError
from ragengine.indexing.build import build_index
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.training import empty_faiss_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.indexing.verify import verify_index
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import E, random_vectors
from tests.support.paths import ROOT


def words(text: str) -> list[str]:
    """The factory strings in ``text``."""
    return text.split()


REFUSED = [
    *words("HNSW0 IVF4_HNSW0,Flat RR0,Flat NSG0 NSG1 NSG16 NSG16,Flat"),
    *words("HNSW1 OPQ0,PQ4 HNSW32_PQ8 HNSW32,PQ8 HNSW16_2x8+PQ4 IVF0,Flat IVF4_NSG8,Flat"),
    *words("RaBitQ PCA8,IVF4,RQ2x4 IVF4,FlatDedup IDMap,Flat LSH IVF4,PQ4+4 Residual4,PQ4"),
    *words("PCA9,Flat PQ3 PQ8x13 PQ4x0 PQ04 IVF2000k,Flat IVF99999999999,Flat OPQ3,PQ4 PQ4x4fs_33"),
    *words("PQ4x4fs_192 PQ4x4fsr RR5000,Flat HNSW99999 IVF4M,Flat PQ4x5fs"),
    *("", ",", "Flat,", ",Flat", "flat", "IVF4", "PCA4", "RFlat", "Flat\n", "Flat,RFlat,RFlat", "F" * 5000),
]


@pytest.mark.parametrize("factory", REFUSED, ids=lambda text: repr(text[:20]))
def test_a_factory_outside_the_grammar_is_refused_before_faiss_sees_it(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "index_factory", None)
    with pytest.raises(InputError, match=r"factory '.*is not one that an index is built with.*; try Flat"):
        parse_factory(factory, E)


@pytest.mark.parametrize(
    ("factory", "least"),
    [("Flat", 1), ("IVF300,SQ8", 300), ("IVF1k,Flat", 1024), ("PQ4x4fs", 16), ("OPQ4,IVF8,PQ4x4", 256)],
)
def test_too_few_vectors_to_train_on_are_refused(factory: str, least: int) -> None:
    parsed = parse_factory(factory, E)
    parsed.check_count(least)
    assert parsed.least == least
    if least > 1:
        with pytest.raises(InputError, match=f"learns from at least {least} vectors, there are {least - 1}"):
            parsed.check_count(least - 1)


def test_a_build_from_too_few_vectors_ends_before_it_begins(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="learns from at least 64 vectors, there are 63"):
        build(random_vectors(63), factory="IVF64,Flat", progress=lambda *_: pytest.fail("work was done"))
    assert not (tmp_path / "index").exists()


CODES = words("Flat SQ4 SQ6 SQ8 SQfp16 PQ4x4 PQ4x5 PQ4x6 PQ4x7 PQ4 PQ4x4fs")
FACTORIES = [
    *CODES,
    *(f"IVF4,{code}" for code in CODES),
    *words("IVF4,PQ4x4fsr IVF4_HNSW4,Flat HNSW4 HNSW4,SQ8 SQbf16 PQ2x4fs_64 L2norm,IVF4,Flat"),
    *words("RR,SQ8"),
    *words("Pad12,PQ4x4 PCA4,Flat PCAR4,IVF4,SQ8 PCAW4,HNSW4 OPQ4,PQ4x4 OPQ2_4,IVF4,PQ2x4fs"),
    *words("OPQ4,IVF4,PQ4"),
    *words("PQ4x4,RFlat IVF4,PQ4x4fs,RFlat OPQ2_4,IVF4,PQ2x4,Refine(SQ8) HNSW4,SQ4,RFlat"),
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_whatever_is_built_is_opened_searched_changed_and_merged(
    build: Callable[..., Path], bundle: Path, tmp_path: Path, factory: str
) -> None:
    """A third of the vectors are one vector: its passages are as good as each other."""
    vectors = random_vectors(300).astype(np.float16).astype(np.float32)
    vectors[100:200] = vectors[100]
    path = build(vectors, factory=factory, recall=0.01)
    verify_index(path)
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "new", "title": "t", "text": "x"}\n')
    np.save(tmp_path / "more.npy", vectors[7:8] * 2)
    add_passages(path, more, bundle=bundle, embeddings=tmp_path / "more.npy")
    assert delete_passages(path, ["id3", "id150", "id299"]).count == 298
    verify_index(path)
    other = path.rename(tmp_path / "other")
    other_build = tmp_path / "second.jsonl"
    other_build.write_text('{"id": "last", "title": "t", "text": "y"}\n')
    np.save(tmp_path / "second.npy", vectors[9:10] * 3)
    build_index(other_build, tmp_path / "second", bundle=bundle, embeddings=tmp_path / "second.npy")
    assert merge_indexes(other, tmp_path / "second", tmp_path / "merged").count == 299
    verify_index(tmp_path / "merged")
    with PassageIndex.open(tmp_path / "merged") as index:
        assert index.manifest.factory == factory
        found = [
            index.search_documents(row, 1, rerank_width=299)[0][0].id for row in (vectors[7:8], vectors[9:10])
        ]
    assert found == ["new", "last"]


def test_every_part_of_the_grammar_is_in_the_docs() -> None:
    guide = (ROOT / "docs/guides/indexes.md").read_text("utf-8")
    for part in ("PCA", "PCAR", "PCAW", "OPQ", "RR", "L2norm", "Pad", "HNSW", "SQbf16", "x4fsr", "Refine("):
        assert part in guide, part


PARTS = [
    *words("Flat SQ8 PQ x4 fs fsr IVF _HNSW HNSW OPQ PCA RR L2norm Pad NSG RFlat Refine( ) , _ k"),
    *words("np"),
    *words("0 1 2 4 8 16 99999999 -1 ²"),
]


@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join))
def test_any_text_is_a_factory_that_faiss_makes_or_is_refused(text: str) -> None:
    """tests/robustness/mutated/factories.py builds with them, in children."""
    try:
        made = empty_faiss_index(text, E)
    except InputError as error:
        assert "is not one that an index is built with" in str(error), text  # noqa: PT017
    else:
        assert (made.d, made.ntotal) == (E, 0)
