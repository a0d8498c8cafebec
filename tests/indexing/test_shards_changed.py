"""Changing an index in shards: it becomes what the index in one folder becomes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragengine import (
    Retriever,
    add_passages,
    compact_index,
    delete_passages,
    merge_indexes,
    shard_index,
    sync_index,
    upsert_passages,
    verify_index,
)
from ragengine.errors import IndexFolderError, RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.changing import old_index
from ragengine.indexing.shard_addresses import set_shard_addresses
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.manifest import ShardsManifest
from tests.support.bundles import WORDS, E, add_passage_encoder, write_bundle

FACTORIES = ("Flat", "IVF3,Flat", "IVF2,SQ8", "SQ8")
FIELDS = ("count", "search", "recall", "tuning", "max_norm", "created_from", "factory", "seed", "reason")
LETTERS = WORDS[4:]
CHANGES = ("add", "delete", "upsert", "sync", "merge", "compact")
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its passage encoder adds up vectors of letters, whole numbers: exact whatever the batch."""
    folder = write_bundle(tmp_path_factory.mktemp("bundle"), E)
    add_passage_encoder(folder, np.random.default_rng(0).integers(-4, 5, (len(WORDS), E)))
    return folder


class Draws:
    """Random passages, few of whose texts differ, with and without ids."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def passages(self, ids: list[str | None]) -> Lines:
        """One with each of ``ids``, which may be None for no id."""
        lines: Lines = []
        for id in ids:
            text = " ".join(self.random.choice(LETTERS[:6], int(self.random.integers(1, 4))))
            line = {"title": "", "text": text, "metadata": {"kind": str(self.random.integers(3))}}
            lines.append(line if id is None else {"id": id, **line})
        return lines

    def some(self, values: list[str], most: int) -> list[str]:
        """Up to ``most`` different values, at least one: one after another, or from anywhere."""
        count = int(self.random.integers(1, min(len(values), most) + 1))
        first = int(self.random.integers(len(values) - count + 1))
        if self.random.random() < 0.5:
            return values[first : first + count]
        return [str(value) for value in self.random.choice(values, count, replace=False)]

    def ids(self, there: list[str], most: int) -> list[str | None]:
        """Ids of passages: none, numbers that others may get, and once in a while one that is there."""
        free = [str(number) for number in range(60) if str(number) not in there]
        ids: list[str | None] = [None] * int(self.random.integers(1, most))
        ids += self.some(free, 3) if self.random.random() < 0.7 else []
        ids += self.some(there, 1) if there and self.random.random() < 0.1 else []
        return [ids[int(place)] for place in self.random.permutation(len(ids))]


class Twins(NamedTuple):
    """An index in one folder and in shards, which are to stay the same."""

    whole: Path
    divided: Path

    def both(self, change: Callable[[Path], object]) -> None:
        """Change both, which succeeds, or is refused with the same words and changes nothing."""
        said = []
        for path in self:
            before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
            try:
                change(path)
                said.append("")
            except RagEngineError as error:
                said.append(f"{type(error).__name__}: {error}".replace(str(path), "PATH"))
                assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
        assert said[0] == said[1]

    def check(self, random: np.random.Generator) -> None:
        """Compare passages, vectors, what is found and what the manifests say."""
        verify_index(self.divided)
        with old_index(self.whole) as whole, old_index(self.divided) as divided:
            assert list(divided.passages()) == list(whole.passages())
            for field in FIELDS:
                assert getattr(divided.manifest, field) == getattr(whole.manifest, field), field
        with open_index(self.whole) as one, open_index(self.divided) as many:
            rows = np.arange(one.count)
            np.testing.assert_array_equal(many.vectors(rows), one.vectors(rows))
            questions = np.concatenate(
                [random.integers(-9, 9, (4, E)), one.vectors(random.integers(one.count, size=4))]
            ).astype(np.float32)
            for n_docs in (1, 5, one.count + 2):
                for given in ({}, {"rerank_width": 20}, {"filter": {"kind": ["0", "1"]}}):
                    try:
                        expected = one.search(questions, n_docs, **given)
                    except RagEngineError as error:
                        with pytest.raises(type(error)):
                            many.search(questions, n_docs, **given)
                        continue
                    found = many.search(questions, n_docs, **given)
                    np.testing.assert_array_equal(found.rows, expected.rows)
                    np.testing.assert_array_equal(found.scores, expected.scores)


class Changes:
    """The changes of one example."""

    def __init__(self, twins: Twins, bundle: Path, folder: Path, draws: Draws) -> None:
        self.twins, self.bundle, self.folder, self.draws = twins, bundle, folder, draws
        self.second = Twins(folder / "second", folder / "second-shards")
        shutil.copytree(twins.whole, self.second.whole)

    @property
    def ids(self) -> list[str]:
        with old_index(self.twins.whole) as old:
            return [passage.id for passage in old.passages()]

    def add(self) -> None:
        lines = self.draws.passages(self.draws.ids(self.ids, 6))
        self.twins.both(lambda path: add_passages(path, lines, bundle=self.bundle, threads=1))

    def delete(self) -> None:
        ids = self.draws.some(self.ids, 12)
        self.twins.both(lambda path: delete_passages(path, ids, threads=1))

    def upsert(self) -> None:
        ids = dict.fromkeys([*self.draws.some(self.ids, 5), *self.draws.some(["u1", "u2", "7"], 2)])
        lines = self.draws.passages([*ids])
        self.twins.both(lambda path: upsert_passages(path, lines, bundle=self.bundle, threads=1))

    def sync(self) -> None:
        lines = self.draws.passages([*self.draws.ids([], 20), *self.draws.some(self.ids, 12)])
        path = self.folder / "passages.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        self.twins.both(lambda index: sync_index(path, index, bundle=self.bundle, force=True, threads=1))

    def merge(self) -> None:
        """With what the index once was, less some passages, so that the quantiser is the same."""
        with old_index(self.second.whole) as old:
            ids = [passage.id for passage in old.passages()]
        if len(ids) > 8:
            delete_passages(self.second.whole, self.draws.some(ids[:8], 3), threads=1)
        shard_index(self.second.whole, self.second.divided, shards=int(self.draws.random.integers(1, 4)))
        others = dict(zip(self.twins, self.second, strict=True))
        self.twins.both(lambda path: merge_indexes(path, others[path], path, threads=1))

    def compact(self) -> None:
        factory = str(self.draws.random.choice(FACTORIES))
        self.twins.both(lambda path: compact_index(path, factory=factory, threads=1))
        shutil.rmtree(self.second.whole)
        shutil.copytree(self.twins.whole, self.second.whole)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    factory=st.sampled_from(FACTORIES),
    count=st.integers(8, 40),
    shards=st.integers(1, 12),
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4),
    ids=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_shards_become_what_the_index_becomes(
    tmp_path_factory: pytest.TempPathFactory,
    bundle: Path,
    factory: str,
    count: int,
    shards: int,
    changes: list[str],
    ids: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    draws, twins = Draws(seed), Twins(folder / "whole", folder / "divided")
    lines = draws.passages([None] * count)
    if ids:
        lines = [{"id": f"p{row}" if row % 3 else str(row + 5), **line} for row, line in enumerate(lines)]
    build_index(lines, twins.whole, bundle=bundle, factory=factory, threads=1)
    shard_index(twins.whole, twins.divided, shards=shards, threads=1)
    made = Changes(twins, bundle, folder, draws)
    for name in changes:
        getattr(made, name)()
        twins.check(draws.random)
    shutil.rmtree(folder)


@pytest.fixture
def twins(tmp_path: Path, bundle: Path) -> Twins:
    """An index of 30 passages with ids p0 to p29, and its three shards."""
    return twins_of(tmp_path, bundle, Draws(1))


def twins_of(folder: Path, bundle: Path, draws: Draws, **options: Any) -> Twins:
    twins = Twins(folder / "whole", folder / "divided")
    lines = draws.passages([f"p{row}" for row in range(30)])
    options = {"factory": "IVF3,Flat", **options}
    build_index(lines, twins.whole, bundle=bundle, threads=1, **options)
    shard_index(twins.whole, twins.divided, shards=3, threads=1)
    return twins


def files_of(shards: Path) -> list[int]:
    """What identifies the FAISS file of each shard."""
    return [path.stat().st_ino for path in sorted(shards.glob("shard-*/index.faiss"))]


def test_shards_that_stay_are_the_same_files(twins: Twins, bundle: Path) -> None:
    set_shard_addresses(twins.divided, {0: ["http://a:8000"]})
    before = files_of(twins.divided)
    twins.both(lambda path: add_passages(path, Draws(2).passages([None, "new"]), bundle=bundle, threads=1))
    after = files_of(twins.divided)
    assert [*map(int.__eq__, before, after)] == [True, True, False]
    manifest = ShardsManifest.read(twins.divided)
    assert [entry.count for entry in manifest.shards] == [10, 10, 12]
    assert [entry.addresses for entry in manifest.shards] == [("http://a:8000",), (), ()]
    twins.both(lambda path: delete_passages(path, ["p12"], threads=1))
    assert [*map(int.__eq__, after, files_of(twins.divided))] == [True, False, True]
    assert [entry.first_row for entry in ShardsManifest.read(twins.divided).shards] == [0, 10, 19]
    twins.check(np.random.default_rng(0))


def test_a_link_to_a_shard_elsewhere_stays_one(twins: Twins, tmp_path: Path) -> None:
    (twins.divided / "shard-0001").rename(tmp_path / "elsewhere")
    (twins.divided / "shard-0001").symlink_to("../elsewhere")
    twins.both(lambda path: delete_passages(path, ["p2"], threads=1))
    assert (twins.divided / "shard-0001").readlink() == (tmp_path / "elsewhere").resolve()
    twins.check(np.random.default_rng(0))


def test_the_questions_of_the_recall_are_kept(tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "queries.npy", np.random.default_rng(3).integers(-9, 9, (12, E)).astype(np.float32))
    twins = twins_of(tmp_path, bundle, Draws(1), queries=tmp_path / "queries.npy")
    twins.both(lambda path: delete_passages(path, ["p2", "p20"], threads=1))
    tuning = ShardsManifest.read(twins.divided).tuning
    assert tuning is not None
    assert (tuning.source, tuning.queries) == ("file", 12)
    twins.check(np.random.default_rng(0))
    (twins.divided / "queries.npy").write_bytes(b"")
    with pytest.raises(IndexFolderError, match=r"queries\.npy has 0 bytes"):
        verify_index(twins.divided)
    with pytest.raises(IndexFolderError, match=r"queries\.npy has 0 bytes"):
        delete_passages(twins.divided, ["p3"])


def test_merging_what_was_trained_apart_is_refused(twins: Twins, bundle: Path, tmp_path: Path) -> None:
    other = twins_of(tmp_path / "other", bundle, Draws(5))
    with pytest.raises(IndexFolderError, match=r"were trained apart, .* divide the result, or add"):
        merge_indexes(twins.divided, other.divided, tmp_path / "merged")
    for first, second in (twins, twins[::-1]):
        with pytest.raises(
            IndexFolderError, match=r"divided is an index in shards and .*whole is not; merge"
        ):
            merge_indexes(first, second, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_change_needs_every_shard(twins: Twins, tmp_path: Path) -> None:
    set_shard_addresses(twins.divided, {1: ["http://a:8000"]})
    (twins.divided / "shard-0001").rename(tmp_path / "elsewhere")
    with pytest.raises(IndexFolderError, match=r"Shard 1 of .* copy the shard's folder there"):
        delete_passages(twins.divided, ["p2"])


def test_a_reader_has_the_old_shards_until_it_swaps(twins: Twins, bundle: Path) -> None:
    with Retriever.load(bundle, twins.divided) as retriever:
        before = retriever.search("a b", 30, nprobe=3)
        delete_passages(twins.divided, ["p0", "p29"], threads=1)
        assert retriever.search("a b", 30, nprobe=3) == before
        retriever.swap_index(twins.divided)
        found = retriever.search("a b", 30, nprobe=3)
    assert {document.id for document in before} - {document.id for document in found} == {"p0", "p29"}
