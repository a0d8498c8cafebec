"""The search for hard negatives."""

from __future__ import annotations

import numpy as np

from ragengine_train.hard_negatives import nearest


def test_nearest() -> None:
    rng = np.random.default_rng(0)
    passages, questions = (rng.normal(size=(n, 8)).astype(np.float16).astype(np.float32) for n in (50, 4))
    expected = np.argsort(-(questions @ passages.T), axis=1)[:, :6]
    np.testing.assert_array_equal(nearest(passages, questions, 6), expected)
