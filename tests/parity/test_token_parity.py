"""RAG-Token against Hugging Face: random checkpoints and options, the same question text on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragengine import Generator

from .checkpoints import random_spec
from .options import Request, random_request
from .pairs import Pair, build_pair
from .reference import TIE, ReferenceAnswer, cut_padding
from .tally import PROPERTY, Tally

SEEDS = range(44)
REQUESTS = range(5)
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=SEEDS, ids="seed{}".format)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One checkpoint for all its requests; pytest runs those one after the other."""
    return build_pair(random_spec(request.param), tmp_path_factory.mktemp(f"seed{request.param}"))


@pytest.mark.parametrize("number", REQUESTS, ids="request{}".format)
def test_same_answers(pair: Pair, number: int, record_property: Callable[[str, object], None]) -> None:
    """The same documents, scores and token ids, by default and under every option of issue 2."""
    request = random_request(pair.spec.seed, number)
    questions = pair.questions(number, request.n_questions)
    expected = pair.reference.answer(questions, request.options)
    if len(questions) == 1 and number % 2:
        answers = [pair.engine.generate(questions[0], **request.options)]
    else:
        answers = pair.engine.generate(questions, **request.options)

    assert len(answers) == len(questions)
    comparison = Comparison(pair, request)
    for answer, reference in zip(answers, expected, strict=True):
        comparison.compare(answer, reference)
    record_property(PROPERTY, comparison.tally.as_property())


def test_prompts_are_byte_exact(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token ids that the generator reads: titles, separators, prefix, decoded question, truncation."""
    questions = pair.questions(100, 6)
    options = {"num_beams": 1, "max_length": 2, "n_docs": 10}
    read: list[tuple[np.ndarray, np.ndarray]] = []
    generate = Generator.generate

    def recording(
        self: Generator,
        context_input_ids: np.ndarray,
        context_attention_mask: np.ndarray,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        read.append((context_input_ids, context_attention_mask))
        return generate(self, context_input_ids, context_attention_mask, *args, **kwargs)

    monkeypatch.setattr(Generator, "generate", recording)
    expected = pair.reference.answer(questions, options)
    pair.engine.generate(questions, **options)

    prompts = [cut_padding(ids, mask) for call in read for ids, mask in zip(*call, strict=True)]
    assert len(prompts) == len(questions)
    for question, ours, reference in zip(questions, prompts, expected, strict=True):
        assert ours == reference.context_input_ids, f"{question!r} under {pair.spec}"


def test_there_are_at_least_200_configurations() -> None:
    assert len(SEEDS) >= 40
    assert len(SEEDS) * len(REQUESTS) >= 200


class Comparison:
    """Compares the answers to one request, probabilities first, and keeps the figures."""

    def __init__(self, pair: Pair, request: Request) -> None:
        self.tally = Tally(configurations=1)
        self._penalty = request.options.get("length_penalty", 1.0)
        self._where = f"{request} of {pair.spec}"

    def compare(self, answer: Any, reference: ReferenceAnswer) -> None:
        """Documents, then hypotheses; differences are excused by a tie on HF's side only."""
        assert reference.doc_scores is not None
        ours = np.array([document.score for document in answer.documents], np.float32)
        self._close("doc_score", ours, reference.doc_scores)
        document_ids = [document.id for document in answer.documents]
        if document_ids != reference.document_ids:
            gap = float(np.abs(np.diff(reference.doc_scores)).min(initial=np.inf))
            assert gap < TIE, f"{document_ids} != {reference.document_ids}; {self._where}"
            self.tally.ties = 1
            return  # another passage is read: nothing further can be compared

        found = [hypothesis for hypothesis in reference.hypotheses if hypothesis.found]
        self.tally.hypotheses += len(found)
        self.tally.never_found += len(reference.hypotheses) - len(found)
        assert len(answer.hypotheses) >= len(found), self._where
        ours_found = answer.hypotheses[: len(found)]
        our_ids = [[int(token) for token in hypothesis.token_ids] for hypothesis in ours_found]
        same = our_ids == [hypothesis.token_ids for hypothesis in found]

        for hypothesis, expected in zip(ours_found, found, strict=True):
            length = len(expected.token_ids)
            if same:
                log_prob = hypothesis.score * length**self._penalty
                self._close("log_prob", np.array(log_prob), np.array(expected.log_prob))
            # A negative penalty multiplies the log-probability, and its rounding, by the length.
            self._close(
                "score", np.array(hypothesis.score), np.array(expected.score), max(1, length**-self._penalty)
            )
        if not same:
            assert reference.margin < TIE, (
                f"{our_ids} != {[h.token_ids for h in found]}; "
                f"HF's closest decision: {reference.margin:.1e}; {self._where}"
            )
            self.tally.ties = 1

    def _close(self, name: str, ours: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> None:
        assert ours.shape == expected.shape, f"{name}: {ours.shape} != {expected.shape}; {self._where}"
        difference = float(np.abs(ours - expected).max(initial=0.0)) / scale
        assert math.isfinite(difference), f"{name}: {ours} != {expected}; {self._where}"
        field = f"{name}_difference"
        setattr(self.tally, field, max(getattr(self.tally, field), difference))
        assert difference <= TOLERANCE, f"{name}: {ours} != {expected} by {difference:.1e}; {self._where}"
