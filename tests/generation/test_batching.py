"""Documents are read in batches of similar length: every one once, and nothing of it cut off."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragengine import Generator
from ragengine.generation import model
from ragengine.generation.batching import ROWS, batches_by_length
from ragengine_bench.parity.pairs import Pair


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_batches_cover_every_document_once(lengths: list[int]) -> None:
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    batches = batches_by_length(mask)
    assert sorted(row for rows, _ in batches for row in rows.tolist()) == list(range(len(lengths)))
    for rows, longest in batches:
        assert longest == max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= ROWS


def test_a_token_after_a_gap_is_read() -> None:
    mask = np.array([[1, 0, 0, 1, 0], [1, 1, 0, 0, 0]])
    assert [length for _, length in batches_by_length(mask)] == [4]


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        (1, [([1], 4), ([3], 4), ([0], 3), ([2], 1), ([4], 1)]),
        (8, [([1, 3], 4), ([0, 2], 3), ([4], 1)]),
        (9, [([1, 3], 4), ([0, 2, 4], 3)]),
        (11, [([1, 3], 4), ([0, 2, 4], 3)]),
        (12, [([1, 3, 0], 4), ([2, 4], 1)]),
        (19, [([1, 3, 0, 2], 4), ([4], 1)]),
        (20, [([1, 3, 0, 2, 4], 4)]),
    ],
)
def test_a_batch_is_as_full_as_it_may_be(rows: int, batches: list[tuple[list[int], int]]) -> None:
    mask = (np.arange(5) < np.array([3, 4, 1, 4, 1])[:, None]).astype(np.int64)
    assert [(found.tolist(), longest) for found, longest in batches_by_length(mask, rows)] == batches


def test_how_documents_are_batched_does_not_change_what_is_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator.load(pair.bundle, device="cpu")
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 40, (2, 3, 30))
    lengths = rng.integers(1, 31, (2, 3, 1))
    mask = (np.arange(30) < lengths).astype(np.int64)
    scores = rng.normal(size=(2, 3)).astype(np.float32)

    def log_probs() -> NDArray[np.float32]:
        return generator.forward(ids, mask, scores, np.array([[2, 5, 6], [2, 7, 8]])).document_log_probs

    together = log_probs()
    read: list[int] = []
    monkeypatch.setattr(generator._model, "_rows_at_once", 1)  # every document alone
    encode = model.run_arrays

    def noted(session: Any, feeds: Any, output: str) -> Any:
        read.append(len(feeds["input_ids"]))
        return encode(session, feeds, output)

    monkeypatch.setattr(model, "run_arrays", noted)
    assert np.abs(log_probs() - together).max() < 1e-5
    assert read == [1] * 6
