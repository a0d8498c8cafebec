"""`index compact`: FAISS learns anew from the vectors that are there; passages and vectors stay."""

from pathlib import Path

import pytest

from ragengine.errors import InputError
from ragengine.indexing import compact
from ragengine.indexing.compact import compact_index
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.update import delete_passages
from ragengine.retrieval.index import PassageIndex
from tests.indexing.test_update import Corpus, check, corpus, run

__all__ = ["corpus"]  # a fixture


def files(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("passages.sqlite", "vectors.npy", "index.faiss")}


def test_a_compacted_index_is_a_new_build_of_what_is_left(corpus: Corpus) -> None:
    path = corpus.build("index", range(400), factory="IVF8,Flat")
    left = [row for row in range(400) if row % 4 == 1]
    delete_passages(path, [f"p{row}" for row in range(400) if row % 4 != 1])
    aged = files(path)
    manifest = compact_index(path)
    assert (manifest.factory, manifest.reason) == ("IVF8,Flat", "chosen by the user")
    check(path, left)
    fresh = corpus.build("fresh", left, factory="IVF8,Flat")
    assert files(path) == files(fresh)
    assert aged["index.faiss"] != files(path)["index.faiss"]
    assert (aged["passages.sqlite"], aged["vectors.npy"]) == tuple(list(files(path).values())[:2])


def test_the_factory_is_chosen_again_unless_the_user_chose_it(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = corpus.build("index", range(300))
    plan = IndexPlan("IVF4,Flat", "there are many now")
    monkeypatch.setattr(compact, "plan_index", lambda count, dimension: plan)
    told: list[IndexPlan] = []
    manifest = compact_index(path, recall=0.99, on_plan=told.append)
    assert told == [plan]
    assert manifest.tuning is not None
    assert (manifest.factory, manifest.tuning.target) == ("IVF4,Flat", 0.99)
    check(path, range(300))
    done = run("compact", path, "--factory", "Flat")
    assert done.exit_code == 0, done.output
    with PassageIndex.open(path) as opened:
        assert (opened.manifest.factory, opened.manifest.recall) == ("Flat", 1.0)
    assert compact_index(path).factory == "Flat"
    check(path, range(300))


def test_a_factory_that_needs_more_passages_is_refused(corpus: Corpus) -> None:
    path = corpus.build("index", range(20))
    before = files(path)
    with pytest.raises(InputError, match="learns from at least 64 vectors, there are 20"):
        compact_index(path, factory="IVF64,Flat")
    assert files(path) == before
