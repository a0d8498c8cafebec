"""The decoder whose past grows by B tokens a step (decoder.onnx): for the CPU."""

from typing import Any

import numpy as np

from ragengine.arrays import BoolArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.generation.decoders.base import MIXTURE_OUTPUTS, EncodedDocuments, Step, StepInputs, inherited
from ragengine.runtime.sessions import InferenceSession, OrtValue, run_bound, to_device

_SMALL_PAST = 8  # tokens; less is not worth copying


class DynamicDecoder:
    """The sessions of the dynamic decoder.  Stateless, so threads may share it."""

    def __init__(self, cross: InferenceSession, decoder: InferenceSession, spec: GeneratorSpec) -> None:
        self._cross = cross
        self._decoder = decoder
        self._spec = spec
        self._past = [value.name for value in decoder.get_inputs() if value.name.startswith("past_")]
        self._present = [name.replace("past_", "present_") for name in self._past]
        past_type = next(value.type for value in decoder.get_inputs() if value.name.startswith("past_"))
        self.dtype: type[np.floating[Any]] = np.float16 if past_type == "tensor(float16)" else np.float32

    def memory(self, states: OrtValue) -> dict[str, OrtValue]:
        """Each layer's cross-attention key and value [Q·D, H, S, K] of the states [Q·D, S, d_model]."""
        outputs = [value.name for value in self._cross.get_outputs()]
        return run_bound(self._cross, {"states": states}, dict.fromkeys(outputs, "cpu"))

    def start(self, reading: EncodedDocuments) -> "DynamicPast":
        """Beams that have read nothing yet."""
        q, d, _ = reading.context_attention_mask.shape
        empty = np.empty((q * d, self._spec.num_heads, 0, self._spec.head_size), self.dtype)
        return DynamicPast(self, reading, dict.fromkeys(self._past, to_device(empty, "cpu")))

    def run(
        self,
        reading: EncodedDocuments,
        past: dict[str, OrtValue],
        own_past: BoolArray,
        length: int,
        step: StepInputs,
    ) -> tuple[Step, dict[str, OrtValue]]:
        """One step after ``past`` [Q·D, H, P, K]; returns it with the past [Q·D, H, P+B, K] of the next."""
        arrays = {
            "token_ids": step.token_ids,
            "own_past": own_past,
            "position": np.array([length], np.int64),
            "context_attention_mask": reading.context_attention_mask,
            "log_weights": step.log_weights,
            "beam_scores": step.beam_scores,
            "num_candidates": np.array([step.num_candidates], np.int64),
            "probe_ids": step.probe_ids,
        }
        feeds = {name: to_device(array, "cpu") for name, array in arrays.items()} | reading.memory | past
        outputs = run_bound(self._decoder, feeds, dict.fromkeys((*MIXTURE_OUTPUTS, *self._present), "cpu"))
        present = {past: outputs[name] for past, name in zip(self._past, self._present, strict=True)}
        return Step(*(outputs[name].numpy() for name in MIXTURE_OUTPUTS)), present


class DynamicPast:
    """A :class:`~ragengine.generation.decoders.base.Decoding` whose past grows.

    past      each layer's self-attention key and value, [Q·D, H, P, K]
    own_past  bool [Q, B, P]
    """

    def __init__(self, decoder: DynamicDecoder, reading: EncodedDocuments, past: dict[str, OrtValue]) -> None:
        self.reading = reading
        self.length = 0
        self._decoder = decoder
        self._past = past
        self._own_past: BoolArray = np.zeros((len(reading.context_attention_mask), 1, 0), np.bool_)

    def step(self, inputs: StepInputs) -> Step:
        """Let every beam read its last token."""
        self._own_past = inherited(self._own_past, inputs.beam_indices)
        self._drop_dead_tokens()
        self._own_past = _with_own_tokens(self._own_past)
        found, self._past = self._decoder.run(self.reading, self._past, self._own_past, self.length, inputs)
        self.length += 1
        return found

    def _drop_dead_tokens(self) -> None:
        """Forget the tokens that no beam goes on from, once they are more than half of the past.

        Beams of one search share most of their past, so what lives grows by about one token a step and
        what is read by B.  Waiting for half keeps the copying below one token's worth a step.
        """
        live = self._own_past.any(axis=1)  # [Q, P]
        most = int(live.sum(axis=1).max(initial=0))
        if live.shape[1] < 2 * most + _SMALL_PAST:
            return
        kept = np.argsort(~live, axis=1, kind="stable")[:, :most]  # [Q, P'], in their order
        documents = self.reading.context_attention_mask.shape[1]
        by_row = np.repeat(kept, documents, axis=0)[:, None, :, None]  # [Q·D, 1, P', 1]
        self._past = {
            name: to_device(np.take_along_axis(value.numpy(), by_row, axis=2), "cpu")
            for name, value in self._past.items()
        }
        self._own_past = np.take_along_axis(self._own_past, kept[:, None], axis=2)


def _with_own_tokens(own_past: BoolArray) -> BoolArray:
    """[Q, B, P] -> [Q, B, P+B]: every beam reads its own new token as well."""
    q, b, _ = own_past.shape
    own = np.broadcast_to(np.eye(b, dtype=np.bool_), (q, b, b))
    return np.concatenate([own_past, own], axis=2)
