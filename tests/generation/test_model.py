"""The three calls of the generator's graphs: padding changes nothing, damaged graphs are found out."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.errors import CancelledError, DeviceError, GraphOutputError
from ragengine.generation.decoders.base import EncodedDocuments, StepInputs, StepOutputs
from ragengine.generation.model import GeneratorModel
from ragengine.runtime.cancellation import Stop
from ragengine_bench.parity.pairs import Pair

Q, D, S, B, C = 2, 3, 7, 2, 4
INPUTS = StepInputs(
    token_ids=np.full((Q, B), 2),
    beam_indices=np.zeros((Q, B), np.int64),
    log_weights=np.full((Q, D, B), -np.log(D), np.float32),
    beam_scores=np.array([[0.0, -1.0]] * Q, np.float32),
    num_candidates=C,
    probe_ids=np.arange(5, 5 + Q * B * 3).reshape(Q, B, 3),
)


@pytest.fixture(scope="module")
def bundle(pair: Pair) -> Bundle:
    return Bundle.open(pair.bundle)


@pytest.fixture(scope="module", params=["dynamic", "static"])
def model(request: pytest.FixtureRequest, bundle: Bundle) -> GeneratorModel:
    return GeneratorModel(bundle, device="cpu", threads=1, decoder=request.param)


def contexts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(4, 40, (Q, D, S)), rng.integers(1, S + 1, (Q, D, 1))
    return ids, (np.arange(S) < lengths).astype(np.int64)


def stepped(model: GeneratorModel, ids: np.ndarray, mask: np.ndarray) -> StepOutputs:
    decoding = model.start(model.encode_documents(ids, mask), beams=B, steps=3)
    return model.decode_step(decoding, INPUTS)


def test_how_far_documents_are_padded_changes_nothing(model: GeneratorModel) -> None:
    ids, mask = contexts()
    wide = ((0, 0), (0, 0), (0, 5))
    found = stepped(model, ids, mask)
    padded = stepped(model, np.pad(ids, wide, constant_values=9), np.pad(mask, wide))
    np.testing.assert_array_equal(found.tokens, padded.tokens)
    np.testing.assert_allclose(found.scores, padded.scores, atol=1e-5)
    np.testing.assert_allclose(found.probe_log_probs, padded.probe_log_probs, atol=1e-5)


def test_searches_share_what_was_read(model: GeneratorModel) -> None:
    """The second starts where the first did, whatever the first has done."""
    encoded = model.encode_documents(*contexts())
    first, second = (model.start(encoded, beams=B, steps=3) for _ in range(2))
    expected = model.decode_step(first, INPUTS)
    model.decode_step(first, INPUTS)
    np.testing.assert_array_equal(model.decode_step(second, INPUTS).scores, expected.scores)
    assert (first.length, second.length) == (2, 1)


def test_a_graph_that_the_bundle_lacks_is_named(bundle: Bundle) -> None:
    files = {name: entry for name, entry in bundle.manifest.files.items() if not name.endswith("step.onnx")}
    older = replace(bundle, manifest=replace(bundle.manifest, files=files))
    with pytest.raises(DeviceError, match=r"no step\.onnx.*export it again"):
        GeneratorModel(older, device="cpu", decoder="static")
    assert GeneratorModel(older, device="cpu").device == "cpu"


@dataclass
class Decoding:
    """Beams whose graph returns what it is told to."""

    outputs: StepOutputs
    length: int = 0

    @property
    def encoded(self) -> EncodedDocuments:
        return EncodedDocuments(np.zeros((Q, D, 1), np.int64), {})

    def advance(self, inputs: StepInputs) -> StepOutputs:
        return self.outputs


def sound() -> dict[str, np.ndarray]:
    shapes = INPUTS.output_shapes
    types = (np.float32, np.int64, np.int64, np.float32, np.float32)
    names = ("scores", "beams", "tokens", "log_probs", "probe_log_probs")
    return {n: np.zeros(shape, dtype) for n, shape, dtype in zip(names, shapes, types, strict=True)}


DAMAGED: dict[str, tuple[str, Any, str]] = {
    "a shape": ("scores", np.zeros((Q, C + 1), np.float32), "wrong shapes"),
    "a score of NaN": ("scores", np.full((Q, C), np.nan, np.float32), "NaN"),
    "a probability of NaN": ("probe_log_probs", np.full((Q, D, B, 3), np.nan, np.float32), "NaN"),
    "a probability above 1": ("probe_log_probs", np.full((Q, D, B, 3), 0.1, np.float32), "above 1"),
    "an infinite score": ("scores", np.full((Q, C), np.inf, np.float32), "above 1"),
    "a beam": ("beams", np.full((Q, C), B), "beam index or token id out of range"),
    "a negative token": ("tokens", np.full((Q, C), -1), "beam index or token id out of range"),
    "a token": ("tokens", np.full((Q, C), 1 << 30), "beam index or token id out of range"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_no_sound_graph_returns_is_an_error(model: GeneratorModel, name: str) -> None:
    field, value, message = DAMAGED[name]
    model.decode_step(Decoding(StepOutputs(**sound())), INPUTS)
    with pytest.raises(GraphOutputError, match=message):
        model.decode_step(Decoding(StepOutputs(**sound() | {field: value})), INPUTS)


def test_a_stop_is_asked_before_reading_and_before_a_step(model: GeneratorModel) -> None:
    class Event:
        def is_set(self) -> bool:
            return True

    stop = Stop(cancel=Event())
    with pytest.raises(CancelledError, match="documents were read"):
        model.encode_documents(*contexts(), stop)
    with pytest.raises(CancelledError, match="after 0 tokens"):
        model.decode_step(Decoding(StepOutputs(**sound())), INPUTS, stop)
