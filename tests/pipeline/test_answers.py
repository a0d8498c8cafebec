"""An answer's flags, and what it takes over from documents and hypotheses."""

from typing import Any

import numpy as np
import pytest

from ragengine import Document, GenerationOptions, Hypothesis
from ragengine.bundle.manifest import RagSpec
from ragengine.generation.contexts import Contexts
from ragengine.pipeline.answers import build_answer
from ragengine.pipeline.documents import select_documents
from ragengine.pipeline.prompts import Prompts
from ragengine_bench.parity.pairs import Pair

RAG = RagSpec("RagTokenForGeneration", " / ", " // ", "", 2, 300, True, True)
TOKENS = np.array([5, 6, 2])


def answer(
    pair: Pair, *, truncated: bool = False, last_log_prob: float = -0.1, pruning: float | None = None,
    **options: Any,
) -> Any:  # fmt: skip
    documents = [[Document("a", "b", score=3.0), Document("c", "d", score=0.0)]]
    selected = select_documents(documents, pruning)
    empty = np.zeros((1, 2, 1), np.int64)
    prompts = Prompts(selected, [truncated], Contexts(empty, empty, selected.log_prior))
    posteriors = np.array([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], np.float32)
    log_probs = np.array([-1, -1, last_log_prob], np.float32)
    hypothesis = Hypothesis(TOKENS, -0.5, float(log_probs.sum()), log_probs, posteriors)
    return build_answer(
        "why?", 0, prompts, [hypothesis],
        GenerationOptions(**{"n_docs": 2, "eos_token_id": 2, "max_length": 9, **options}),
        tokenizer=pair.engine._tokenizer, rag=RAG, timings_ms={}, doc_pruning=pruning, own_documents=False,
    )  # fmt: skip


FLAGS: dict[str, dict[str, Any]] = {
    "question_truncated": {"truncated": True},
    "fewer_documents": {"n_docs": 3},
    "documents_pruned": {"pruning": 0.3},
    "max_length_reached": {"max_length": 4, "eos_token_id": 3},
    "trained_for_token": {"marginalize": "sequence"},
}


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_has_its_reason(pair: Pair, flag: str) -> None:
    assert answer(pair).flags == ()
    assert answer(pair, **FLAGS[flag]).flags == (flag,)


def test_an_end_token_that_the_limit_forced_is_the_limits(pair: Pair) -> None:
    """But where the model would have ended the answer by itself."""
    limits = {"max_length": 4, "forced_eos_token_id": 2}
    assert answer(pair, last_log_prob=-0.1, **limits).flags == ()
    assert answer(pair, last_log_prob=-2.0, **limits).flags == ("max_length_reached",)
    assert answer(pair, last_log_prob=-2.0, max_length=4).flags == ()


def test_documents_get_their_share_and_padding_goes(pair: Pair) -> None:
    found = answer(pair)
    assert found.token_posteriors.shape == (3, 2)
    assert [document.posterior for document in found.documents] == [0.5, 0.5]
    of_the_last = answer(pair, marginalize="sequence")
    assert [document.posterior for document in of_the_last.documents] == [0.25, 0.75]
    tokenizer = pair.engine._tokenizer
    assert found.text == tokenizer.decode(TOKENS.tolist())
    assert found.tokens == tuple(tokenizer.token_texts(TOKENS.tolist()))
