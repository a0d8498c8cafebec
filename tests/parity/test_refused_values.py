"""Values that transformers takes and ragengine refuses, each on the page about what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import NoBadWordsLogitsProcessor

from ragengine.errors import OptionsError
from ragengine.options import GenerationOptions
from ragengine_bench.parity.pairs import Pair, full_dict
from ragengine_bench.parity.reference import context_arguments

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "transformers.md"
TAKEN: list[tuple[dict[str, Any], str]] = [
    ({"early_stopping": None}, "`None` for an option"),
    ({"no_repeat_ngram_size": None}, "`None` for an option"),
    ({"do_sample": True, "top_k": None}, "`None` for an option"),
    ({"do_sample": True, "top_p": 1.5}, "`top_p` or `typical_p` above 1"),
    ({"do_sample": True, "typical_p": 1.5}, "`top_p` or `typical_p` above 1"),
    ({"do_sample": True, "epsilon_cutoff": -1.0}, "`epsilon_cutoff` below 0"),
    ({"do_sample": True, "epsilon_cutoff": 1.0}, "or from 1 on"),
    ({"no_repeat_ngram_size": -1}, "a negative `no_repeat_ngram_size`"),
    ({"bad_words_ids": [[]]}, "`bad_words_ids=[[]]`"),
    ({"suppress_tokens": [-1]}, "negative token ids"),
    ({"forced_bos_token_id": -1}, "negative token ids"),
    ({"do_sample": True, "top_p": 0.0}, "`top_p=0`"),
    ({"length_penalty": 9.0}, "`length_penalty` beyond ±8"),
    ({"repetition_penalty": 1e-7}, "`repetition_penalty` or `temperature` outside"),
    ({"forced_eos_token_id": [2]}, "`forced_eos_token_id` as a list"),
]


@pytest.mark.parametrize(("options", "row"), TAKEN, ids=str)
def test_what_transformers_takes_is_refused_as_the_page_says(
    pair: Pair, options: dict[str, Any], row: str
) -> None:
    contexts = pair.reference.contexts(pair.questions(0, 1), 2)
    beams = 1 if options.get("do_sample") else 2
    with torch.no_grad():
        pair.reference.model.generate(
            **context_arguments(*contexts), n_docs=2, **full_dict(num_beams=beams, max_length=5) | options
        )
    with pytest.raises(OptionsError, match=str(next(name for name in options if name != "do_sample"))):
        GenerationOptions(num_beams=beams, max_length=5, **options)
    assert row in PAGE.read_text("utf-8")


def test_no_bad_words_are_no_rule() -> None:
    assert GenerationOptions(bad_words_ids=()).bad_words_ids == ()
    with pytest.raises(ValueError, match="non-empty list"):
        NoBadWordsLogitsProcessor([])
    assert "`bad_words_ids=[]`" in PAGE.read_text("utf-8")
