"""The order of training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ragengine.errors import OptionsError
from ragengine_train.example_order import draw, group_by_length


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
