"""The dynamic decoder: what no beam continues is forgotten, and that changes no number."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.generation.decoders import dynamic
from ragengine.generation.decoders.base import StepInputs
from ragengine.generation.decoders.dynamic import DynamicDecoding
from ragengine.generation.model import GeneratorModel
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint

Q, D, S, B, STEPS = 2, 3, 9, 4, 16


@pytest.fixture(scope="module")
def model(pair: Pair) -> GeneratorModel:
    return GeneratorModel(Bundle.open(pair.bundle), device="cpu", threads=1, decoder="dynamic")


def decoded(model: GeneratorModel) -> tuple[list[Any], list[int]]:
    """Steps of beams that all continue the first one; and the length of the past after each."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 40, (Q, D, S))
    encoded = model.encode_documents(ids, np.ones_like(ids))
    decoding = model.start(encoded, beams=B, steps=STEPS)
    assert isinstance(decoding, DynamicDecoding)
    outputs, lengths = [], []
    for step in range(STEPS):
        inputs = StepInputs(
            token_ids=rng.integers(4, 40, (Q, B)),
            beam_indices=np.zeros((Q, B), np.int64),
            log_weights=np.full((Q, D, B), -np.log(D), np.float32),
            beam_scores=np.zeros((Q, B), np.float32),
            num_candidates=4,
            probe_ids=rng.integers(4, 40, (Q, B, 5)),
        )
        outputs.append(model.decode_step(decoding, inputs))
        assert decoding.length == step + 1
        lengths.append(decoding._own_past.shape[2])
    return outputs, lengths


def test_forgetting_dead_tokens_changes_no_number(
    model: GeneratorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetting, short = decoded(model)
    monkeypatch.setattr(dynamic, "_EVERY", 10**6)
    keeping, long = decoded(model)
    assert long[-1] == B * STEPS
    assert short[-1] < long[-1]
    # every eighth step the tokens in use, one for each step, are brought to 16 places
    assert short == [B * (step + 1) if step < 8 else 16 + B * (step - 7) for step in range(STEPS)]
    for ours, expected in zip(forgetting, keeping, strict=True):
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(ours.probe_log_probs, expected.probe_log_probs, atol=1e-5)


def test_every_beam_reads_its_own_new_token_alone() -> None:
    own_past = np.array([[[True, False], [False, True]]])
    found = dynamic._with_own_tokens(own_past)
    assert found.astype(int).tolist() == [[[1, 0, 1, 0], [0, 1, 0, 1]]]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_questions_that_stay_are_not_changed_by_those_that_leave(pair: Pair, kind: Any) -> None:
    """Documents of different lengths, so that every question has keys and values of its own."""
    model = GeneratorModel(Bundle.open(pair.bundle), device="cpu", threads=1, decoder=kind)
    rng, q, stays, leaves_after = np.random.default_rng(1), 4, [1, 3], 2
    ids = rng.integers(4, 40, (q, D, S))
    mask = (np.arange(S) < rng.integers(1, S + 1, (q, D, 1))).astype(np.int64)
    steps = [
        StepInputs(
            token_ids=rng.integers(4, 40, (q, B)),
            beam_indices=rng.integers(0, B if number else 1, (q, B)),
            log_weights=np.log(rng.dirichlet(np.ones(D), (q, B))).transpose(0, 2, 1).astype(np.float32),
            beam_scores=-rng.exponential(size=(q, B)).astype(np.float32),
            num_candidates=4,
            probe_ids=rng.integers(4, 40, (q, B, 5)),
        )
        for number in range(6)
    ]

    def of(inputs: StepInputs, questions: list[int]) -> StepInputs:
        arrays = ("token_ids", "beam_indices", "log_weights", "beam_scores", "probe_ids")
        return replace(inputs, **{name: getattr(inputs, name)[questions] for name in arrays})

    encoded = model.encode_documents(ids, mask)
    decoding, alone = (model.start(encoded, beams=B, steps=6) for _ in range(2))
    for number, inputs in enumerate(steps):
        expected = model.decode_step(alone, inputs)
        if number == leaves_after:
            decoding.keep(np.array(stays))
        present = stays if number >= leaves_after else list(range(q))
        outputs = model.decode_step(decoding, of(inputs, present))
        assert (outputs.beams == expected.beams[present]).all()
        assert (outputs.tokens == expected.tokens[present]).all()
        for name in ("scores", "log_probs", "probe_log_probs"):
            np.testing.assert_allclose(getattr(outputs, name), getattr(expected, name)[present], atol=1e-5)


def test_whatever_documents_are_kept_in_is_taken_by_question(pair: Pair, tmp_path: Any) -> None:
    """In int8 a document is numbers and scales, some of them with tokens along their last axis."""
    export_checkpoint(pair.checkpoint.source, tmp_path / "int8", "int8", check=False)
    model = GeneratorModel(Bundle.open(tmp_path / "int8"), device="cpu", threads=1)
    ids = np.random.default_rng(0).integers(4, 40, (3, 2, S))
    encoded = model.encode_documents(ids, np.ones_like(ids))
    decoding = model.start(encoded, beams=1, steps=1)
    decoding.keep(np.array([2, 0]))
    for name, value in encoded.memory.items():
        by_question = value.numpy().reshape(3, 2, *value.shape()[1:])
        expected = by_question[[2, 0]].reshape(4, *value.shape()[1:])
        np.testing.assert_array_equal(decoding.encoded.memory[name].numpy(), expected)
    one, other = (model.encode_documents(part, np.ones_like(part)) for part in (ids[:1, :1], ids[:1, 1:]))
    for name, value in one.joined(other).memory.items():
        parts = [part.memory[name].numpy() for part in (one, other)]
        np.testing.assert_array_equal(value.numpy(), np.concatenate(parts))
