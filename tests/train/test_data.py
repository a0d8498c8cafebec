"""Lines, the order of training, and batches of the encoders."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import OptionsError, PassagesError
from ragengine_train.config import EncodersConfig
from ragengine_train.data import Corpus, Line, read_lines
from ragengine_train.encoders import BatchMaker, Item, PassageItems
from ragengine_train.example_order import check_groups, draw, group_by_length
from ragengine_train.hard_negatives import NegativeTables, nearest


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [("a", "text a", "A"), ("b", "text b", "B"), ("a2", "text a", "A"), ("c", "text c", "C")]
    path = tmp_path / "passages.tsv"
    path.write_text("id\ttext\ttitle\n" + "".join("\t".join(row) + "\n" for row in rows))
    return Corpus.read(path)


def lines_of(tmp_path: Path, corpus: Corpus, *entries: dict[str, Any]) -> list[Line]:
    path = tmp_path / "lines.jsonl"
    path.write_text(
        "".join(json.dumps({"question": "q", "answers": ["x"], **entry}) + "\n" for entry in entries)
    )
    return read_lines([path], corpus)


def test_copies_of_a_passage(tmp_path: Path, corpus: Corpus) -> None:
    inline = {"title": "A", "text": "changed a"}
    lines = lines_of(
        tmp_path,
        corpus,
        {"passage_id": "a2"},
        {"passage_id": "a", "passage": inline},
        {"passage": {"title": "N", "text": "n"}},
    )
    assert [line.passage for line in lines] == [2, 4, 5]
    assert corpus.copy_of == [0, 1, 0, 3, 0, 5]
    assert corpus.indexed == 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"passage_id": "zz"}, "line 1: the passage 'zz' is not in the passages file"),
        ({"hard_negative_ids": ["a", "yy"]}, "'yy' is not in"),
        ({"answers": "x"}, "is not {"),
        ({"passage": {"title": "t"}}, "line 1, \"passage\": 'text' must be a string"),
        ({"passage": "t"}, '"passage" is not'),
        ({"passage_id": 7}, '"passage_id" is 7; write a string'),
        ({"passage_id": "zz", "passage": {"title": "t", "text": "u"}}, "'zz' is not in"),
        ({"hard_negative_ids": "c"}, "\"hard_negative_ids\" is 'c'; write a list"),
        ({"question": "\ud800"}, "is not {"),
    ],
)
def test_wrong_line(tmp_path: Path, corpus: Corpus, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(PassagesError, match=said):
        lines_of(tmp_path, corpus, entry)


def test_draw() -> None:
    groups = ["a"] * 10 + ["b"] * 90 + ["c"]
    order = draw(groups, 202, seed=1)
    assert set(Counter(order).values()) == {2}
    assert order == draw(groups, 202, seed=1) != draw(groups, 202, seed=2)
    shared = Counter(groups[index] for index in draw(groups, 4000, 1, {"a": 0.5, "b": 0.5}))
    assert set(shared) == {"a", "b"}
    assert 1800 < shared["a"] < 2200
    with pytest.raises(OptionsError, match="names the groups d, which no line has; there are a, b, c"):
        draw(groups, 5, 1, {"d": 1.0})


def test_group_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000).tolist()
    order = group_by_length(range(1000), lengths, 8, seed=0)
    assert sorted(order) == list(range(1000))
    spread = [
        max(lengths[i] for i in batch) - min(lengths[i] for i in batch)
        for batch in np.reshape(order, (-1, 8))
    ]
    assert np.mean(spread) < 10


def test_batch(tmp_path: Path, corpus: Corpus) -> None:
    """A passage of two items is one column, and copies of a positive are masked."""
    lines = lines_of(
        tmp_path, corpus, {"question": "one", "passage_id": "a"}, {"question": "two", "passage_id": "b"}
    )
    questions, passages = [[1, 2], [3]], [[9] * (row + 2) for row in range(4)]
    maker = BatchMaker(corpus, lines, questions, passages, (0, 0))
    batch = maker([Item([0, 2, 1], [(0, 0)]), Item([1, 3], [(1, 1)])])
    assert [part["input_ids"].shape for part in batch["passages"]] == [(2, 3), (2, 5)]  # rows 0 1, 2 3
    assert batch["labels"].tolist() == [0, 1]
    assert batch["copies"].tolist() == [[False, False, True, False], [False] * 4]
    assert batch["questions"]["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_items_follow_the_mined_negatives(tmp_path: Path, corpus: Corpus) -> None:
    lines = lines_of(tmp_path, corpus, {"passage_id": "a", "hard_negative_ids": ["c"]}, {"passage_id": "b"})
    tables = NegativeTables(tmp_path / "tables", [0, 2])
    config = EncodersConfig(hard_negatives=1, question_negatives=True)
    items = PassageItems(lines, config, tables, total=20, a_step=4, seed=3)

    def negatives_of_a(step: int) -> set[int]:
        batch = [items[number] for number in range(4 * step, 4 * step + 4)]
        return {row for item in batch if item.passages[0] == 0 for row in item.passages[1:]}

    assert negatives_of_a(0) == {3}
    tables.write(0, {0: [1]})
    tables.write(2, {0: [3], 1: []})
    assert [negatives_of_a(step) for step in range(5)] == [{1}, {1}, {1}, {3}, {3}]
    item = next(items[number] for number in range(4) if items[number].passages == [0, 1])
    assert item.questions == [(0, 0), (1, 1)]
    assert NegativeTables(tmp_path / "tables", [0, 2]).at(3) == {0: [3]}


def test_groups_that_are_not_named_are_not_asked(tmp_path: Path, corpus: Corpus) -> None:
    """A passage whose lines are of several groups is drawn for a group, and asked its questions."""
    groups = ("left out", "one", "two")
    lines = lines_of(tmp_path, corpus, *({"passage_id": "a", "group": group} for group in groups))
    named = [line for line in lines if line.group in ("one", "two")]
    tables = NegativeTables(tmp_path / "tables", [])
    config = EncodersConfig(sample={"one": 0.9, "two": 0.1}, questions_per_passage=2)
    items = PassageItems(named, config, tables, total=200, a_step=1, seed=3)
    assert all(item.passages == [0] and len(item.questions) == 1 for item in items)
    asked = Counter(named[item.questions[0][0]].group for item in items)
    assert 160 < asked["one"] < 195
    with pytest.raises(OptionsError, match="sample names the groups three, which no line has"):
        check_groups([line.group for line in lines], {"three": 1.0})


def test_nearest() -> None:
    rng = np.random.default_rng(0)
    passages, questions = (rng.normal(size=(n, 8)).astype(np.float16).astype(np.float32) for n in (50, 4))
    expected = np.argsort(-(questions @ passages.T), axis=1)[:, :6]
    np.testing.assert_array_equal(nearest(passages, questions, 6), expected)
