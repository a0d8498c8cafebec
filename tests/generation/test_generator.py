"""`Generator`'s public methods check their arguments once, and what they return belongs together."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from ragengine import GenerationOptions, Generator
from ragengine.errors import InputError, OptionsError
from ragengine.generation import generator as module
from ragengine_bench.parity.pairs import Pair


@pytest.fixture(scope="module")
def generator(pair: Pair) -> Generator:
    return Generator.load(pair.bundle, device="cpu", threads=1)


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 40, (3, 4, 12))
    mask = (np.arange(12) < rng.integers(1, 13, (3, 4, 1))).astype(np.int64)
    return ids, mask, rng.normal(size=(3, 4)).astype(np.float32)


def test_arrays_that_do_not_fit_are_refused_by_every_call(generator: Generator, arrays: Any) -> None:
    ids, mask, scores = arrays
    options = GenerationOptions(eos_token_id=2)
    labels = np.full((3, 4), 5)
    calls: list[Any] = [
        lambda *given: generator.generate(*given, options),
        lambda *given: generator.stream(*(array[:1] for array in given), options),
        lambda *given: generator.forward(*given, labels),
        lambda *given: generator.score(*given, labels),
    ]
    for call in calls:
        with pytest.raises(InputError, match="NaN"):
            call(ids, mask, scores * np.nan)
        with pytest.raises(InputError, match="context_input_ids hold token -1"):
            call(ids * 0 - 1, mask, scores)


def test_a_stream_is_of_one_question(generator: Generator, arrays: Any) -> None:
    with pytest.raises(InputError, match="3 questions cannot stream together"):
        generator.stream(*arrays, GenerationOptions(eos_token_id=2))


def test_options_beyond_the_model_are_refused(generator: Generator, arrays: Any) -> None:
    positions = generator.bundle.manifest.generator.max_positions
    with pytest.raises(OptionsError, match=f"max_length is {positions + 1}, the model has {positions}"):
        generator.generate(*arrays, GenerationOptions(max_length=positions + 1))
    with pytest.raises(OptionsError, match="options is dict"):
        generator.generate(*arrays, {"num_beams": 2})


def test_every_check_runs_once(generator: Generator, arrays: Any) -> None:
    names = ("checked_contexts", "checked_allowed", "option_errors")
    labels = np.full((3, 4), 5)
    for call, counts in (
        (lambda: generator.generate(*arrays), (1, 1, 1)),
        (lambda: generator.score(*arrays, labels), (1, 0, 0)),
        (lambda: generator.forward(*arrays, labels), (1, 0, 0)),
    ):
        with (
            patch.object(module, names[0], wraps=getattr(module, names[0])) as contexts,
            patch.object(module, names[1], wraps=getattr(module, names[1])) as allowed,
            patch.object(module, names[2], wraps=getattr(module, names[2])) as options,
        ):
            call()
        assert (contexts.call_count, allowed.call_count, options.call_count) == counts


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_score_is_the_sum_of_forward(generator: Generator, arrays: Any, marginalize: Any) -> None:
    labels = np.random.default_rng(1).integers(5, 40, (3, 6))
    output = generator.forward(*arrays, labels, marginalize=marginalize)
    scores = generator.score(*arrays, labels, marginalize=marginalize, exclude_bos_score=False)
    np.testing.assert_allclose(output.log_probs.sum(axis=1), scores, rtol=1e-4)
    np.testing.assert_allclose(output.posteriors.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(output.log_prior).sum(axis=1), 1, rtol=1e-5)


def test_several_labels_of_one_question_are_scored_as_one_each(generator: Generator, arrays: Any) -> None:
    one = [array[:1] for array in arrays]
    labels = np.random.default_rng(2).integers(5, 40, (4, 6))
    labels[:, 0] = 2
    together = generator.score(*one, labels)
    alone = [generator.score(*one, row[None])[0] for row in labels]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_parts_of_a_call_are_numbered_through(
    generator: Generator, arrays: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question at a time, where memory is for one: errors and callbacks name the call's questions."""
    expected = [[h.token_ids.tolist() for h in found] for found in generator.generate(*arrays)]
    monkeypatch.setattr(module, "questions_that_fit", lambda *sizes: 1)
    found = generator.generate(*arrays)
    assert [[h.token_ids.tolist() for h in hypotheses] for hypotheses in found] == expected
    asked: list[int] = []

    def allowed(question: int, tokens: np.ndarray) -> list[int]:
        asked.append(question)
        return [2, 5, 6]

    generator.generate(*arrays, prefix_allowed_tokens_fn=allowed)
    assert set(asked) == {0, 1, 2}
