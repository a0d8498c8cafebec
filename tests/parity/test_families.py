"""Every generator but BART against Hugging Face, from question text to tokens.

Odd seeds go through the static decoder, which a GPU runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair
from ragengine_bench.parity.requests import (
    Request,
    any_request,
    random_request,
    sequence_request,
    with_special_tokens,
)
from tests.support.comparison import Comparison
from tests.support.models import transformers_5
from tests.support.tally import PROPERTY

FAMILIES = [name for name in GENERATORS if name != "bart"]
FAST, SLOW = range(2), range(2, 102)
pytestmark = transformers_5

OWN: dict[str, dict[str, Any]] = {
    # its class adds no end token to a text cut off right after one (docs/concepts/transformers.md)
    "byt5": {"doc_sep": " // "},
    # without a norm of the embeddings, answers of -200 nats round by 1e-4 in transformers itself
    "marian": {"peak": 2.0},
    "pegasus": {"peak": 2.0},
}

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
    """The same documents, scores and token ids for each request."""
    spec = random_spec(seed, model_type=name, **OWN.get(name, {}))
    pair = build_pair(spec, tmp_path, static=seed % 2 == 1)
    try:
        for number, (kind, request) in enumerate(requests(pair)):
            questions = pair.questions(number, min(request.n_questions, 2))
            reference = pair.reference if kind == "token" else pair.sequence_reference
            expected = reference.answer(questions, request.options)
            answers = pair.engine.generate(questions, marginalize=kind, **request.options)
            comparison = Comparison(kind, pair, request)
            for answer, theirs in zip(answers, expected, strict=True):
                comparison.compare(answer, theirs)
            record_property(PROPERTY, comparison.tally.as_property())
    finally:
        pair.engine.close()
