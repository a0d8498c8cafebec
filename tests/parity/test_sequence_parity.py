"""RAG-Sequence, thorough decoding, against Hugging Face; and rules that only a Python caller can give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragengine_bench.parity.pairs import Pair, full_dict, full_options
from ragengine_bench.parity.requests import Request, any_request, sequence_request
from tests.support.comparison import Comparison
from tests.support.tally import PROPERTY

Record = Callable[[str, object], None]


@pytest.mark.parametrize("number", range(3), ids="request{}".format)
def test_same_answers(parity_pair: Pair, number: int, record_property: Record) -> None:
    """The same documents, scores and token ids from the question's text."""
    check(parity_pair, number, sequence_request(parity_pair.spec.seed, number), record_property)


@pytest.mark.parametrize("number", range(2), ids="request{}".format)
def test_same_answers_with_any_options(parity_pair: Pair, number: int, record_property: Record) -> None:
    """The same with any options together, from none to nearly all."""
    request = any_request("sequence", parity_pair.spec.seed, number, parity_pair.seen)
    check(parity_pair, number, request, record_property)


def check(pair: Pair, number: int, request: Request, record_property: Record) -> None:
    questions = pair.questions(number + 10, request.n_questions)
    expected = pair.sequence_reference.answer(questions, request.options)
    answers = pair.engine.generate(questions, marginalize="sequence", **request.options)
    comparison = Comparison("sequence", pair, request)
    for answer, reference in zip(answers, expected, strict=True):
        comparison.compare(answer, reference)
    record_property(PROPERTY, comparison.tally.as_property())


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_same_answers_from_allowed_tokens(parity_pair: Pair, kind: str, record_property: Record) -> None:
    """`prefix_allowed_tokens_fn`, on the low-level `Generator`: a few tokens may follow each token.

    RAG-Sequence's `generate` calls it with the number of the document where RAG-Token's gives that of the
    question, so only the latter's may depend on it.
    """
    seed = parity_pair.spec.seed
    rng = np.random.default_rng([seed, 8])
    vocab_size = parity_pair.reference.model.config.generator.vocab_size
    options: dict[str, Any] = {
        "num_beams": int(rng.integers(1, 5)),
        "max_length": int(rng.integers(3, 12)),
        "early_stopping": (False, True, "never")[seed % 3],
    }
    if rng.random() < 0.4:
        options["no_repeat_ngram_size"] = int(rng.integers(1, 3))
    if rng.random() < 0.4 and options["num_beams"] > 1:
        options["repetition_penalty"] = 1.3
    if rng.random() < 0.4:
        options["min_length"] = options["max_length"] - 1

    def allowed(question: int, tokens: np.ndarray) -> list[int]:
        own = np.random.default_rng([seed, int(tokens[-1]), question if kind == "token" else 0])
        return [2, *own.choice(vocab_size, 12, replace=False).tolist()]

    contexts = parity_pair.reference.contexts(parity_pair.questions(20, 2), int(rng.integers(1, 5)))
    reference = parity_pair.reference if kind == "token" else parity_pair.sequence_reference
    expected = reference.decode(*contexts, full_dict(**options), prefix_allowed_tokens_fn=allowed)
    ours = parity_pair.generator().generate(
        *contexts,
        full_options(**options, marginalize=kind),
        prefix_allowed_tokens_fn=allowed,
    )
    comparison = Comparison(kind, parity_pair, Request(2, options))
    for hypotheses, answer in zip(ours, expected, strict=True):
        comparison.compare_hypotheses(hypotheses, answer)
    record_property(PROPERTY, comparison.tally.as_property())


def test_there_are_at_least_500_configurations(request: pytest.FixtureRequest) -> None:
    """Configurations of both kinds, as many as docs and README speak of, are part of the fast tests."""
    collected = [item for item in request.session.items if "parity_pair" in getattr(item, "fixturenames", ())]
    if len(request.session.items) < 600:
        pytest.skip("only a part of the tests was asked for")
    assert sum("test_same_answers" in item.name for item in collected) >= 500
