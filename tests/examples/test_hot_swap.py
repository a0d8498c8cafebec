"""The hot-swap experiment: the worlds differ in the listed facts alone, and answers follow."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ragengine import RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.retrieval.index import PassageIndex
from tests.support.paths import WORLDFACTS

BUNDLE, INDEX = WORLDFACTS / "bundle", WORLDFACTS / "index"


@pytest.fixture(scope="module")
def hot_swap() -> Iterator[ModuleType]:
    sys.path.insert(0, str(WORLDFACTS))
    try:
        yield importlib.import_module("hot_swap")
    finally:
        sys.path.remove(str(WORLDFACTS))


@pytest.fixture(scope="module")
def shipped() -> list[Passage]:
    with PassageIndex.open(INDEX) as index:
        return index.passages(range(index.count))


def test_the_worlds_differ_in_the_listed_facts_alone(hot_swap: ModuleType, shipped: list[Passage]) -> None:
    changes = hot_swap.read_changes()
    assert len({(change.country, change.fact) for change in changes}) == len(changes) >= 80
    assert len({change.question(n) for n, change in enumerate(changes)}) == len(changes)
    worlds = {world: hot_swap.passages_of(world, shipped, changes) for world in hot_swap.WORLDS}
    values = {value for change in changes for value in (change.older, change.newer)}
    for change in changes:
        assert change.older != change.newer
        assert 1996 <= int(change.since) <= 2026
        assert change.known_from
    differing = 0
    for older, newer in zip(worlds["older"], worlds["newer"], strict=True):
        assert older.id == newer.id
        if older == newer:
            continue
        differing += 1
        # What only one of the two says is made of words of the listed values, or where a capital is.
        said, other = set(older.text.split()), set(newer.text.split())
        words = {word for value in values for word in value.split()}
        words |= {"It", "is", "the", "The", "capital", "of"}
        extra = {word.strip(".,") for word in said ^ other} - words
        assert extra <= {change.place for change in changes if change.fact == "capital"} | {"serves", "as"}
    assert 100 < differing < 300


def test_answers_follow_the_index(hot_swap: ModuleType, tmp_path: Path) -> None:
    changes = hot_swap.read_changes()
    indexes = hot_swap.build_worlds(tmp_path, Bundle.open(BUNDLE), INDEX, changes)
    asked = [(change, change.question(number)) for number, change in enumerate(changes)][::9]
    with RagEngine.load(BUNDLE, index=indexes["older"], device="cpu") as engine:
        before = [answer.text.strip() for answer in engine.generate([q for _, q in asked])]
        engine.swap_index(indexes["newer"])
        after = [answer.text.strip() for answer in engine.generate([q for _, q in asked])]
    chosen = [change for change, _ in asked]
    right = {
        (answers, world): sum(hot_swap.right_answers(given, chosen, world))
        for answers, given in (("before", before), ("after", after))
        for world in hot_swap.WORLDS
    }
    assert right["before", "older"] >= 0.8 * len(chosen)
    assert right["after", "newer"] >= 0.8 * len(chosen)
    assert right["before", "newer"] == right["after", "older"] == 0
