"""Reading ahead changes no token and no score, in the graphs of every family and under any options.

Random checkpoints do not copy their documents.  So suggestions also come from the answer itself, with errors
among them: chains of every length are accepted and refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions, Generator
from ragengine.generation.search import lookahead
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair
from ragengine_bench.parity.requests import any_request, random_request, with_special_tokens
from ragengine_export import export_checkpoint
from tests.support.copying import save_copying_bart
from tests.support.exact import ExactTokens, exact_tokens
from tests.support.models import save_dpr, transformers_5

ROUNDING = 2e-5  # of float32, whether a row is computed alone or among others
SPACING = 8e-6  # of float32 at 80, which the graph subtracts from the score of every token (`HEADROOM`)
DIGITS = 2e-6  # float32 keeps seven of a log-probability, however far it is from 0
CASES = [
    pytest.param(
        name,
        seed,
        id=f"{name}-{seed}",
        marks=[pytest.mark.slow] * (seed > 0) + [transformers_5] * (name != "bart"),
    )
    for name in GENERATORS
    for seed in range(12)
]


class NoisyAnswer:
    """Suggests the answer itself, three of four tokens right."""

    def __init__(self, answer: list[int], vocab_size: int, seed: int) -> None:
        self._answer, self._vocab_size = answer, vocab_size
        self._rng = np.random.default_rng(seed)

    def suggested(self, output: Sequence[int], count: int) -> list[int]:
        true = self._answer[len(output) : len(output) + count]
        wrong = self._rng.integers(self._vocab_size, size=len(true)).tolist()
        return [w if self._rng.random() < 0.25 else t for t, w in zip(true, wrong, strict=True)]


def greedy_options(pair: Pair, number: int) -> dict[str, Any]:
    made = (
        any_request("token", pair.spec.seed, number, pair.seen)
        if number % 2
        else random_request(pair.spec.seed, 0)
    )
    options = dict(with_special_tokens(made, pair.reference.model.config.generator).options)
    left_out = {"num_return_sequences", "num_beams", "do_sample", "prefix_allowed_tokens_fn"}
    options = {name: value for name, value in options.items() if name not in left_out}
    return {**options, "num_beams": 1, "do_sample": False, "marginalize": "token"}


def agree(ours: Any, expected: Any, exact: ExactTokens) -> None:
    """The same tokens and score; what was read alone and what was read ahead are as near to float64."""
    assert ours.hypotheses[0].token_ids.tolist() == expected.hypotheses[0].token_ids.tolist()
    tokens, penalty = len(expected.hypotheses[0].token_ids), expected.options.length_penalty
    added = max(ROUNDING, SPACING * tokens ** max(0.0, 1 - penalty))
    assert ours.score == pytest.approx(expected.score, abs=added, rel=DIGITS)
    for answer in (ours, expected):
        np.testing.assert_allclose(answer.token_log_probs, exact.log_probs, atol=ROUNDING, rtol=DIGITS)
        np.testing.assert_allclose(answer.token_posteriors, exact.posteriors, atol=ROUNDING)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_same_answer_in_no_more_steps(
    name: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = build_pair(random_spec(seed, model_type=name), tmp_path)
    rng = np.random.default_rng(seed)
    model = pair.engine.generator._model
    steps: list[int] = []
    step = type(model).decode_step

    def counted(*given: Any) -> Any:
        steps.append(given[2].token_ids.shape[1])
        return step(*given)

    monkeypatch.setattr(type(model), "decode_step", counted)
    total = {"plain": 0, "ahead": 0}
    for number in range(6):
        options = greedy_options(pair, number)
        (question,) = pair.questions(number, 1)
        steps.clear()
        expected = pair.engine.generate(question, **options)
        total["plain"] += len(steps)
        answer = expected.hypotheses[0].token_ids.tolist()
        start = options.get("decoder_start_token_id")
        exact = exact_tokens(pair.reference, question, len(expected.documents), answer, start)
        ahead = {
            "prompt_lookup_num_tokens": int(rng.integers(1, 7)),
            "max_matching_ngram_size": int(rng.integers(1, 4)),
        }
        agree(pair.engine.generate(question, **options, **ahead), expected, exact)
        with monkeypatch.context() as patch:
            patch.setattr(
                lookahead, "PromptLookup", lambda *_, a=answer: NoisyAnswer(a, model.spec.vocab_size, seed)
            )
            steps.clear()
            agree(pair.engine.generate(question, **options, **ahead), expected, exact)
            total["ahead"] += len(steps)
            with pair.engine.stream(question, **options, **ahead) as stream:
                assert [token.token_id for token in stream] == answer
                agree(stream.answer(), expected, exact)
    assert total["ahead"] <= total["plain"]
    if total["plain"] > 3 * 6:  # answers of one token have nothing to read ahead
        assert total["ahead"] < total["plain"]
    pair.engine.close()


@pytest.mark.parametrize("ahead", [2, 5, 10])
def test_a_document_is_copied_in_few_steps(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By real graphs, whose weights are set so that the answer is the best document's text."""
    export_checkpoint(
        None,
        tmp_path / "bundle",
        question_encoder=save_dpr(tmp_path / "encoder"),
        generator=save_copying_bart(tmp_path / "generator"),
        check=False,
    )
    generator = Generator.load(tmp_path / "bundle", device="cpu", threads=1)
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(5, 205), (3, 1)), axis=1)[None, :, :120]
    ids[:, :, 0], ids[:, :, -1] = 0, 2
    scores = np.log([[0.2, 0.7, 0.1]]).astype(np.float32)
    options = GenerationOptions(max_length=150, eos_token_id=2)
    steps: list[int] = []
    step = type(generator._model).decode_step

    def counted(*given: Any) -> Any:
        steps.append(given[2].token_ids.shape[1])
        return step(*given)

    monkeypatch.setattr(type(generator._model), "decode_step", counted)
    ((plain,),) = generator.generate(ids, np.ones_like(ids), scores, options)
    assert plain.token_ids.tolist() == ids[0, 1, 1:].tolist()
    assert len(steps) == 119
    steps.clear()
    given = options.replace(prompt_lookup_num_tokens=ahead)
    ((found,),) = generator.generate(ids, np.ones_like(ids), scores, given)
    assert found.token_ids.tolist() == plain.token_ids.tolist()
    np.testing.assert_allclose(found.token_log_probs, plain.token_log_probs, atol=ROUNDING)
    # the first token alone, then 1 + ahead a step
    assert len(steps) == 1 + -(-118 // (1 + ahead))
