"""The decoder whose KV cache grows by B tokens a step (decoder.onnx): for the CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ragengine.arrays import BoolArray, IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.bundle.onnx_reader import FLOAT
from ragengine.bundle.signatures import MIXTURE_OUTPUTS, layer_names, memory_values
from ragengine.generation.decoders.base import (
    EncodedDocuments,
    OpenSession,
    Result,
    StepInputs,
    StepOutputs,
    inherited,
)
from ragengine.runtime.sessions import OrtValue, run_bound, to_device

_SMALL_PAST = 8  # tokens; less is not worth copying


class DynamicDecoder:
    """A :class:`~ragengine.generation.decoders.base.Decoder` of graphs on the CPU.  It has no state."""

    def __init__(self, open_session: OpenSession, spec: GeneratorSpec) -> None:
        self._cross, self._decoder = open_session("cross.onnx"), open_session("decoder.onnx")
        self._spec = spec
        self._memory = list(memory_values(spec, FLOAT))
        self._past, self._present = layer_names("past", spec), layer_names("present", spec)
        half = any(value.type == "tensor(float16)" for value in self._decoder.get_inputs())
        self.dtype: type[np.floating[Any]] = np.float16 if half else np.float32
        # one position for all beams in bundles of before
        self.reads_chains = any(v.name == "position" and v.shape != [1] for v in self._decoder.get_inputs())

    def source_length(self, length: int) -> int:
        """``length``: every length is computed as it is."""
        return length

    def memory(self, states: OrtValue) -> dict[str, OrtValue]:
        """Each layer's cross-attention keys and values of the states [Q·D, S, d_model]."""
        return run_bound(self._cross, {"states": states}, dict.fromkeys(self._memory, "cpu"))

    def start(self, encoded: EncodedDocuments, *, beams: int, steps: int) -> "DynamicDecoding":
        """Beams that have read nothing yet; no memory is reserved for ``beams`` or ``steps``."""
        q, d, _ = encoded.context_attention_mask.shape
        empty = np.empty((q * d, self._spec.num_heads, 0, self._spec.head_size), self.dtype)
        return DynamicDecoding(self, encoded, dict.fromkeys(self._past, to_device(empty, "cpu")))

    def run_search(self, search: Callable[[], Result]) -> Result:
        """Run a search in the thread that asks for it."""
        return search()

    def run(self, feeds: dict[str, OrtValue]) -> tuple[StepOutputs, dict[str, OrtValue]]:
        """One step; returns it with the past [Q·D, H, P+B, K] of the next."""
        outputs = run_bound(self._decoder, feeds, dict.fromkeys((*MIXTURE_OUTPUTS, *self._present), "cpu"))
        past = {past: outputs[present] for past, present in zip(self._past, self._present, strict=True)}
        return StepOutputs(*(outputs[name].numpy() for name in MIXTURE_OUTPUTS)), past


class DynamicDecoding:
    """A :class:`~ragengine.generation.decoders.base.Decoding` whose past grows.

    past      each layer's self-attention key and value, [Q·D, H, P, K]
    own_past  bool [Q, B, P]
    """

    def __init__(self, decoder: DynamicDecoder, encoded: EncodedDocuments, past: dict[str, OrtValue]) -> None:
        self.encoded = encoded
        self.length = 0
        self._decoder = decoder
        self._past = past
        self._own_past: BoolArray = np.zeros((len(encoded.context_attention_mask), 1, 0), np.bool_)

    def advance(self, inputs: StepInputs) -> StepOutputs:
        """Let every beam read its last token."""
        self._own_past = inherited(self._own_past, inputs.beam_indices)
        self._drop_dead_tokens()
        position = np.array([self._own_past[0, 0].sum()], np.int64)
        self._own_past = _with_own_tokens(self._own_past, chained=inputs.chained)
        arrays = {
            "token_ids": inputs.token_ids,
            "own_past": self._own_past,
            "position": position + np.arange(inputs.token_ids.shape[1]) if inputs.chained else position,
            "context_attention_mask": self.encoded.context_attention_mask,
            "log_weights": inputs.log_weights,
            "beam_scores": inputs.beam_scores,
            "num_candidates": np.array([inputs.num_candidates], np.int64),
            "probe_ids": inputs.probe_ids,
        }
        feeds = {name: to_device(array, "cpu") for name, array in arrays.items()}
        outputs, self._past = self._decoder.run(feeds | self.encoded.memory | self._past)
        self.length = int(position[0]) + 1
        return outputs

    def keep(self, questions: IntArray) -> None:
        """Copy keys and values of the questions that go on: a step then computes no row of the others.

        One array after the other, so that no more than one is there twice.
        """
        documents = self.encoded.context_attention_mask.shape[1]
        rows = (questions[:, None] * documents + np.arange(documents)).ravel()
        self.encoded = self.encoded.of_questions(questions)
        for arrays in (self.encoded.memory, self._past):
            for name, value in arrays.items():
                arrays[name] = to_device(value.numpy()[rows], "cpu")
        self._own_past = self._own_past[questions]

    def _drop_dead_tokens(self) -> None:
        """Forget the tokens that no beam continues, once they are more than half of the past.

        Beams of one search share most of their past, so the tokens in use grow by about one a step and the
        tokens read by B.  Waiting for half keeps the copying below one token's worth a step.
        """
        live = self._own_past.any(axis=1)  # [Q, P]
        most = int(live.sum(axis=1).max(initial=0))
        if live.shape[1] < 2 * most + _SMALL_PAST:
            return
        kept = np.argsort(~live, axis=1, kind="stable")[:, :most]  # [Q, P'], in their order
        documents = self.encoded.context_attention_mask.shape[1]
        by_row = np.repeat(kept, documents, axis=0)[:, None, :, None]  # [Q·D, 1, P', 1]
        self._past = {
            name: to_device(np.take_along_axis(value.numpy(), by_row, axis=2), "cpu")
            for name, value in self._past.items()
        }
        self._own_past = np.take_along_axis(self._own_past, kept[:, None], axis=2)


def _with_own_tokens(own_past: BoolArray, *, chained: bool = False) -> BoolArray:
    """[Q, B, P] -> [Q, B, P+B]: every beam reads its own new token as well, and in a chain those before."""
    q, b, _ = own_past.shape
    new = np.tri(b, dtype=np.bool_) if chained else np.eye(b, dtype=np.bool_)
    own = np.broadcast_to(new, (q, b, b))
    return np.concatenate([own_past, own], axis=2)
