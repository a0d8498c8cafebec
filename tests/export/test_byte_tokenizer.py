"""ByT5's tokenizer as a `tokenizer.json`: the ids and the texts of transformers' own."""

import numpy as np
import pytest
from transformers import ByT5Tokenizer

from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_export.byte_tokenizer import fast_byte_tokenizer

TEXTS = [
    "", "a", "Zürich is  the capital!\n", "東京 🙂 \u200b\x00\x7f", "a </s> b", "<pad>x", "<extra_id_0> y",
    " leading and trailing ", "é" * 50,
]  # fmt: skip


@pytest.fixture(scope="module", params=[125, 3])
def slow(request: pytest.FixtureRequest) -> ByT5Tokenizer:
    return ByT5Tokenizer(extra_ids=request.param)


def test_the_same_tokens_of_every_text(slow: ByT5Tokenizer) -> None:
    fast = fast_byte_tokenizer(slow)
    for text in [*TEXTS, *random_questions(np.random.default_rng(0), 30)]:
        ids = slow(text)["input_ids"]
        assert fast(text)["input_ids"] == ids, text
        assert (
            fast(text, truncation=True, max_length=7)["input_ids"]
            == slow(text, truncation=True, max_length=7)["input_ids"]
        ), text
    assert len(fast) == len(slow)
    assert fast.pad_token_id == slow.pad_token_id
    assert fast.eos_token_id == slow.eos_token_id


def test_the_same_text_of_every_token(slow: ByT5Tokenizer) -> None:
    """Also where the bytes are no UTF-8, in the middle of a character or at all."""
    fast, rng = fast_byte_tokenizer(slow), np.random.default_rng(1)
    rows = [rng.integers(0, len(slow), rng.integers(1, 20)).tolist() for _ in range(300)]
    rows += [slow(text)["input_ids"] for text in TEXTS]
    for row in rows:
        assert fast.decode(row, skip_special_tokens=True) == slow.decode(row, skip_special_tokens=True), row
