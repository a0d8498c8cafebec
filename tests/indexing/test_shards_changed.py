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
    add_passages,
    compact_index,
    delete_passages,
    merge_indexes,
    shard_index,
    sync_index,
    upsert_passages,
    verify_index,
)
from ragengine.errors import RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.changing import old_index
from ragengine.retrieval.open_index import open_index
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
