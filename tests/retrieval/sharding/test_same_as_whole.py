"""An index in shards finds what the index finds: the same documents, the same scores, to the last bit."""

import itertools
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragengine.indexing.partition import part_of
from ragengine.indexing.training import remove, write_faiss
from ragengine.retrieval import candidates as module
from ragengine.retrieval.candidates import Candidates, Plan, SearchResult, find
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.passage_filter import MatchingRows
from ragengine.retrieval.sharding.quantizer import empty_copy
from ragengine.retrieval.vector_index import VectorIndex
from tests.support.bundles import Array, random_vectors

WIDE = 16
FACTORIES = ["Flat", "IVF8,Flat", "IVF8,PQ4x4", "OPQ8_8,IVF8,PQ8x4", "IVF8,SQ8", "SQ8", "PQ4x4"]
FACTORIES += ["OPQ8_8,PQ8x4", "PCA8,IVF8,PQ8x4", "IVF4,PQ2x8"]


@cache
def trained(factory: str) -> bytes:
    index = faiss.index_factory(WIDE, factory, faiss.METRIC_INNER_PRODUCT)
    if "OPQ" in factory:
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 3
    index.train(random_vectors(600, WIDE, seed=9))
    return bytes(faiss.serialize_index(index))


def filled(factory: str, vectors: Array) -> faiss.Index:
    index = faiss.deserialize_index(np.frombuffer(trained(factory), np.uint8))
    index.add(vectors.astype(np.float32))
    return index


def without(index: faiss.Index, vectors: Array, gone: Array, max_norm: float) -> VectorIndex:
    """The index of ``vectors`` without the rows ``gone``, as a deletion leaves it."""
    kept = np.delete(vectors, gone, axis=0)
    if len(gone) and not remove(index, gone):
        index.reset()
        index.add(kept.astype(np.float32))
    return VectorIndex(index, kept, max_norm, {})


class Divided:
    """The vector indexes of shards, as a :class:`ShardedIndex` asks them."""

    def __init__(
        self, path: Path, vectors: Array, whole: VectorIndex, bounds: list[int], gone: Array
    ) -> None:
        """``whole`` is the index at ``path``, of ``vectors``, without the rows ``gone``."""
        self.whole = whole
        empty, filled_index = empty_copy(path), read_faiss(path, mapped=True)
        self.parts, self.bounds = [], [0]
        for first, end in itertools.pairwise(bounds):
            ours = gone[(gone >= first) & (gone < end)] - first
            part = part_of(filled_index, empty, first, end - first)
            self.parts.append(without(part, vectors[first:end], ours, whole.max_norm))
            self.bounds.append(self.bounds[-1] + end - first - len(ours))

    def search(self, questions: Array, n_docs: int, mask: Array | None, **given: int) -> SearchResult:
        def propose(asked: Array, plan: Plan) -> Candidates:
            found = []
            for part, (first, end) in zip(self.parts, itertools.pairwise(self.bounds), strict=True):
                ours = None if mask is None else MatchingRows.of_mask(mask[first:end])
                found.append(part.propose(asked, plan, ours))
            return Candidates.joined(found, self.bounds[:-1], len(asked))

        matching = None if mask is None else int(mask.sum())
        return find(propose, self.whole.facts, questions, n_docs, matching=matching, **given)


@settings(max_examples=120, deadline=None)
@given(
    factory=st.sampled_from(FACTORIES),
    count=st.integers(1, 300),
    distinct=st.integers(1, 300),
    shards=st.integers(1, 6),
    n_docs=st.integers(1, 40),
    rerank_width=st.integers(1, 60),
    nprobe=st.integers(1, 9),
    asked=st.sampled_from([1, 3, 25]),
    kept=st.one_of(st.none(), st.floats(0.02, 1)),
    few=st.booleans(),
    deleted=st.one_of(st.just(0.0), st.floats(0, 0.95)),
    seed=st.integers(0, 2**32),
)
def test_shards_find_what_the_index_finds(
    tmp_path_factory: pytest.TempPathFactory,
    factory: str,
    count: int,
    distinct: int,
    shards: int,
    n_docs: int,
    rerank_width: int,
    nprobe: int,
    asked: int,
    kept: float | None,
    few: bool,
    deleted: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    # Some vectors are there several times, so that equal ones lie in different shards.
    different = random.standard_normal((distinct, WIDE)).astype(np.float16)
    vectors = different[random.integers(0, distinct, count)]
    index = filled(factory, vectors)
    max_norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    path = tmp_path_factory.mktemp("divided") / "index.faiss"
    write_faiss(index, path)
    gone = np.flatnonzero(random.random(count) < deleted)[: count - 1]
    whole = without(index, vectors, gone, max_norm)
    # Some shards are empty, and some have fewer passages than documents are wanted.
    bounds = [0, *sorted(random.integers(0, count + 1, shards - 1).tolist()), count]
    left = count - len(gone)
    mask = None
    if kept is not None:
        mask = random.random(left) < kept
        mask[random.integers(left)] = True
    settings_given = {"rerank_width": rerank_width}
    if "IVF" in factory:
        settings_given["nprobe"] = nprobe
    questions = random.standard_normal((asked, WIDE)).astype(np.float32)
    questions[0] = whole.vectors[0]  # what is stored several times is among the best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_MATCHING", 4096 if few else 0)
        matching = None if mask is None else MatchingRows.of_mask(mask)
        expected = whole.search(questions, n_docs, matching=matching, **settings_given)
        found = Divided(path, vectors, whole, bounds, gone).search(questions, n_docs, mask, **settings_given)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    for question, rows, scores in zip(questions, found.rows, found.scores, strict=True):
        there = rows[rows >= 0]
        assert (scores[rows < 0] == -np.inf).all()
        np.testing.assert_array_equal(there, there[np.lexsort((there, -scores[rows >= 0]))])
        if whole.exact:
            searched = np.arange(left) if mask is None else np.flatnonzero(mask)
            every = whole.exact_scores(question, searched)
            np.testing.assert_array_equal(there, searched[np.lexsort((searched, -every))][:n_docs])
