"""The study of fewer documents: it sees a bound that holds, and one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragengine.evaluation import Question
from ragengine_bench.parity.pairs import Pair
from ragengine_bench.studies.fewer_documents import ROUNDING, adaptive, excess, pruned


@pytest.fixture
def questions(pair: Pair) -> list[Question]:
    """Answered with what the model says to the first, so that it is right once at least."""
    asked = pair.questions(2, 3)
    return [Question(text, answers=(pair.engine.generate(asked[0]).text,)) for text in asked]


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_the_bounds_hold(pair: Pair, questions: list[Question], kind: Any) -> None:
    row = pruned(pair.engine, kind, 0.25, questions)
    assert row.broken == 0
    assert sum(row.documents) < sum(row.all_documents)  # a bound was needed
    assert max(row.excess) <= ROUNDING
    assert len(row.cells()) == 9


def test_adaptive_reading_keeps_every_token(pair: Pair, questions: list[Question]) -> None:
    row = adaptive(pair.engine, questions)
    assert row.broken == 0
    assert all(row.same)


def test_a_bound_that_is_too_small_is_broken(pair: Pair, questions: list[Question]) -> None:
    """The difference that pruning makes, beside an answer that claims to have left nothing out."""
    found = []
    for question in questions:
        whole = pair.engine.generate(question.question, marginalize="token")
        fewer = pair.engine.generate(question.question, marginalize="token", doc_pruning=0.4)
        found.append(excess(pair.engine, question, whole, replace(fewer, pruned=()), "token"))
    assert max(found) > ROUNDING
