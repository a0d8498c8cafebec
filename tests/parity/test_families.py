"""Every generator but BART against Hugging Face, from question text to tokens.

Odd seeds go through the static decoder, which a GPU runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragengine import Answer
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair
from ragengine_bench.parity.reference import ReferenceAnswer
from ragengine_bench.parity.requests import (
    Request,
    any_request,
    random_request,
    sequence_request,
    with_special_tokens,
)
from tests.support.comparison import TOLERANCE, Comparison
from tests.support.exact import exact_tokens
from tests.support.models import transformers_5
from tests.support.tally import PROPERTY, Tally

FAMILIES = [name for name in GENERATORS if name != "bart"]
FAST, SLOW = range(2), range(2, 102)
pytestmark = transformers_5

OWN: dict[str, dict[str, Any]] = {
    # its class adds no end token to a text cut off right after one (docs/concepts/transformers.md)
    "byt5": {"doc_sep": " // "},
}
# Float32 itself: of 1,000 checkpoints the two sides differ by at most 1.0e-5 a token (a Marian, whose
# embeddings have no norm), each by as much from the same model in float64, on either side of it.
PER_TOKEN = 2e-5
PLAIN = 3  # the first so many requests have no rule that changes scores

FAST_CASES = [pytest.param(name, seed, id=f"{name}-{seed}") for name in FAMILIES for seed in FAST]
SLOW_CASES = [
    pytest.param(name, seed, id=f"{name}-{seed}", marks=pytest.mark.slow)
    for seed in SLOW
    for name in FAMILIES
]


def requests(pair: Pair) -> list[tuple[str, Request]]:
    """Requests of both kinds: greedy, the most used options, any options together."""
    seed = pair.spec.seed
    made = [("token", random_request(seed, number)) for number in (0, 1, 2)]
    made += [("sequence", sequence_request(seed, 1)), ("sequence", sequence_request(seed, 2))]
    made += [(kind, any_request(kind, seed, 5, pair.seen)) for kind in ("token", "sequence")]
    config = pair.reference.model.config.generator
    return [(kind, with_special_tokens(request, config)) for kind, request in made]


@pytest.mark.parametrize(("name", "seed"), FAST_CASES + SLOW_CASES)
def test_same_answers(
    name: str, seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The same documents, scores and token ids for each request; log-probabilities as in float64."""
    spec = random_spec(seed, model_type=name, **OWN.get(name, {}))
    pair = build_pair(spec, tmp_path, static=seed % 2 == 1)
    exact = ExactScores(pair)
    try:
        for number, (kind, request) in enumerate(requests(pair)):
            questions = pair.questions(number, min(request.n_questions, 2))
            reference = pair.reference if kind == "token" else pair.sequence_reference
            expected = reference.answer(questions, request.options)
            answers = pair.engine.generate(questions, marginalize=kind, **request.options)
            comparison = Comparison(kind, pair, request, PER_TOKEN)
            for question, answer, theirs in zip(questions, answers, expected, strict=True):
                comparison.compare(answer, theirs)
                if kind == "token" and number < PLAIN and not comparison.tally.ties:
                    exact.compare(question, answer, theirs)
            record_property(PROPERTY, comparison.tally.as_property())
        record_property(PROPERTY, exact.tally.as_property())
    finally:
        pair.engine.close()


class ExactScores:
    """Log-probabilities of RAG-Token answers beside those that the same model has in float64."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.tally = Tally("token", pair.spec.model_type)

    def compare(self, question: str, answer: Answer, theirs: ReferenceAnswer) -> None:
        """Compare the best hypothesis of both sides, which has the same tokens."""
        expected, ours = theirs.hypotheses[0], answer.hypotheses[0].log_prob
        if not expected.found:
            return
        tokens = exact_tokens(self._pair.reference, question, len(answer.documents), expected.token_ids)
        exact = float(tokens.log_probs.sum())
        difference, drift = abs(ours - exact), abs(expected.log_prob - exact)
        where = f"{ours} != {exact}, {expected.log_prob} in transformers; {self._pair.spec}"
        assert difference <= TOLERANCE, where
        self.tally.exact_difference = max(self.tally.exact_difference, difference)
        if drift < 1e-3:  # otherwise a token was forced, which the search counts as 0
            self.tally.reference_exact_difference = max(self.tally.reference_exact_difference, drift)
