"""Prompts: every question joined with each of its documents, padded alike."""

import numpy as np
import pytest

from ragengine import Document
from ragengine.errors import CancelledError
from ragengine.pipeline.documents import select_documents
from ragengine.pipeline.prompts import build_prompts, format_prompt
from ragengine.retrieval.encoder import EncodedQuestions
from ragengine.runtime.cancellation import Stop
from ragengine_bench.parity.pairs import Pair


def questions_of(*texts: str) -> EncodedQuestions:
    return EncodedQuestions(np.zeros((len(texts), 1), np.float32), list(texts), [False] * len(texts))


def test_every_prompt_is_the_tokens_of_its_document_and_question(pair: Pair) -> None:
    rag, tokenizer = pair.engine.bundle.manifest.rag, pair.engine._tokenizer
    documents = [[Document("one", "ab", score=1.0), Document("two", "cd ef", score=0.5)],
                 [Document("three", "gh", score=0.0)]]  # fmt: skip
    selected = select_documents(documents, None)
    prompts = build_prompts(rag, tokenizer, questions_of("who is it", "where"), selected)
    contexts = prompts.contexts
    assert contexts.input_ids.shape == contexts.attention_mask.shape
    assert contexts.input_ids.shape[:2] == (2, 2)
    for question, (text, found) in enumerate(zip(("who is it", "where"), documents, strict=True)):
        for place, document in enumerate(found):
            (expected,) = tokenizer.encode([format_prompt(rag, document.title, document.text, text)])
            shown = contexts.attention_mask[question, place].astype(bool)
            assert contexts.input_ids[question, place, shown].tolist() == expected.ids
    # the missing document: one pad token that is read, with the prior 0
    assert contexts.attention_mask[1, 1].sum() == 1
    assert contexts.input_ids[1, 1, 0] == tokenizer.spec.pad_token_id
    assert np.isneginf(contexts.log_prior[1, 1])
    np.testing.assert_array_equal(contexts.log_prior, selected.log_prior)


def test_a_question_that_is_cut_off_is_said_to_be(pair: Pair) -> None:
    rag, tokenizer = pair.engine.bundle.manifest.rag, pair.engine._tokenizer
    selected = select_documents([[Document("t", "x", score=1.0)]] * 3, None)
    questions = questions_of("short", "long " * tokenizer.max_length, "short")
    questions.truncated[2] = True
    assert build_prompts(rag, tokenizer, questions, selected).truncated == [False, True, True]


def test_a_stop_is_asked_before_each_question(pair: Pair) -> None:
    class Event:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 2  # before a question and while it is tokenized

    selected = select_documents([[Document("t", "x", score=1.0)]] * 3, None)
    rag, tokenizer = pair.engine.bundle.manifest.rag, pair.engine._tokenizer
    stop = Stop(cancel=Event())
    with pytest.raises(CancelledError, match="documents of 1 of 3 questions"):
        build_prompts(rag, tokenizer, questions_of("a", "b", "c"), selected, stop)
