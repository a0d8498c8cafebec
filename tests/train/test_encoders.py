"""DPR's loss, items and batches."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from ragengine.errors import OptionsError
from ragengine_train.config import EncodersConfig
from ragengine_train.data import TrainingPassages
from ragengine_train.encoders import BatchMaker, Item, PassageItems, dpr_loss
from ragengine_train.example_order import check_groups
from ragengine_train.hard_negatives import NegativeTables
from tests.support.training_world import examples_of


def test_dpr_loss_by_hand() -> None:
    """DPR, equation 2; the third passage is a copy of the first question's positive."""
    questions, passages = (
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),
    )
    labels, copies = torch.tensor([0, 1]), torch.tensor([[False, False, True], [False, False, False]])
    first = -math.log(math.exp(1) / (math.exp(1) + math.exp(0)))
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2) + math.exp(0)))
    assert dpr_loss(questions, passages, labels, copies).item() == pytest.approx((first + second) / 2)


def test_dpr_loss_is_float32_under_autocast() -> None:
    questions, passages = torch.tensor([[40.0, 0.03]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    labels, copies = torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dpr_loss(questions, passages, labels, copies)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.03)), rel=1e-4)


def test_batch(tmp_path: Path, corpus: TrainingPassages) -> None:
    """A passage of two items is one column, and copies of a positive are masked."""
    examples = examples_of(
        tmp_path, corpus, {"question": "one", "passage_id": "a"}, {"question": "two", "passage_id": "b"}
    )
    questions, passages = [[1, 2], [3]], [[9] * (row + 2) for row in range(4)]
    maker = BatchMaker(corpus, examples, questions, passages, (0, 0))
    batch = maker([Item([0, 2, 1], [(0, 0)]), Item([1, 3], [(1, 1)])])
    assert [part["input_ids"].shape for part in batch["passages"]] == [(2, 3), (2, 5)]  # rows 0 1, 2 3
    assert batch["labels"].tolist() == [0, 1]
    assert batch["copies"].tolist() == [[False, False, True, False], [False] * 4]
    assert batch["questions"]["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_items_follow_the_mined_negatives(tmp_path: Path, corpus: TrainingPassages) -> None:
    examples = examples_of(
        tmp_path, corpus, {"passage_id": "a", "hard_negative_ids": ["c"]}, {"passage_id": "b"}
    )
    tables = NegativeTables(tmp_path / "tables", [0, 2])
    config = EncodersConfig(hard_negatives=1, question_negatives=True)
    items = PassageItems(examples, config, tables, total=20, a_step=4, seed=3)

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


def test_only_named_groups_are_drawn(tmp_path: Path, corpus: TrainingPassages) -> None:
    """A passage with examples of several groups is drawn for one group, with the questions of that group."""
    groups = ("left out", "one", "two")
    examples = examples_of(tmp_path, corpus, *({"passage_id": "a", "group": group} for group in groups))
    named = [example for example in examples if example.group in ("one", "two")]
    tables = NegativeTables(tmp_path / "tables", [])
    config = EncodersConfig(sample={"one": 0.9, "two": 0.1}, questions_per_passage=2)
    items = PassageItems(named, config, tables, total=200, a_step=1, seed=3)
    assert all(item.passages == [0] and len(item.questions) == 1 for item in items)
    drawn = Counter(named[item.questions[0][0]].group for item in items)
    assert 160 < drawn["one"] < 195
    with pytest.raises(OptionsError, match="sample names the groups three, which no line has"):
        check_groups([example.group for example in examples], {"three": 1.0})
