"""RAG-Token against Hugging Face: random checkpoints and options, the same question text on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragengine.generation.model import GeneratorModel
from ragengine_bench.parity.pairs import Pair
from ragengine_bench.parity.reference import cut_padding
from ragengine_bench.parity.requests import Request, any_request, random_request
from tests.support.comparison import Comparison
from tests.support.tally import PROPERTY

Record = Callable[[str, object], None]


@pytest.mark.parametrize("number", range(5), ids="request{}".format)
def test_same_answers(parity_pair: Pair, number: int, record_property: Record) -> None:
    """The same documents, scores and token ids, by default and under the most used options."""
    check(parity_pair, number, random_request(parity_pair.spec.seed, number), record_property)


@pytest.mark.parametrize("number", range(2), ids="request{}".format)
def test_same_answers_with_any_options(parity_pair: Pair, number: int, record_property: Record) -> None:
    """The same with any options together, from none to nearly all."""
    request = any_request("token", parity_pair.spec.seed, number, parity_pair.seen)
    check(parity_pair, number, request, record_property)


def check(pair: Pair, number: int, request: Request, record_property: Record) -> None:
    questions = pair.questions(number, request.n_questions)
    expected = pair.reference.answer(questions, request.options)
    if len(questions) == 1 and number % 2:
        answers = [pair.engine.generate(questions[0], **request.options)]
    else:
        answers = pair.engine.generate(questions, **request.options)

    assert len(answers) == len(questions)
    comparison = Comparison("token", pair, request)
    for answer, reference in zip(answers, expected, strict=True):
        comparison.compare(answer, reference)
    record_property(PROPERTY, comparison.tally.as_property())


def test_prompts_are_byte_exact(parity_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token ids that the generator reads: titles, separators, prefix, decoded question, truncation."""
    questions = parity_pair.questions(100, 6)
    options = {"num_beams": 1, "max_length": 2, "n_docs": 10}
    read: list[tuple[np.ndarray, np.ndarray]] = []
    encode_documents = GeneratorModel.encode_documents

    def recording(self: GeneratorModel, ids: np.ndarray, mask: np.ndarray, *args: Any) -> Any:
        read.append((ids, mask))
        return encode_documents(self, ids, mask, *args)

    monkeypatch.setattr(GeneratorModel, "encode_documents", recording)
    expected = parity_pair.reference.answer(questions, options)
    parity_pair.engine.generate(questions, **options)

    prompts = [cut_padding(ids, mask) for call in read for ids, mask in zip(*call, strict=True)]
    assert len(prompts) == len(questions)
    for question, ours, reference in zip(questions, prompts, expected, strict=True):
        assert ours == reference.context_input_ids, f"{question!r} under {parity_pair.spec}"
