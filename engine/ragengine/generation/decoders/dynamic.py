"""The decoder whose KV cache grows by B tokens a step (decoder.onnx): for the CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

_EVERY = 8  # steps, after which dead tokens are dropped
ALIGNED = 16  # places: numbers of a vector register, and a divisor of the kernels' blocks


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
        self._steps = 0
        self._decoder = decoder
        self._past = past
        self._own_past: BoolArray = np.zeros((len(encoded.context_attention_mask), 1, 0), np.bool_)

    def advance(self, inputs: StepInputs) -> StepOutputs:
        """Let every beam read its last token."""
        self._own_past = inherited(self._own_past, inputs.beam_indices)
        if self._steps % _EVERY == 0 and not self._own_past.all():
            self._drop_dead_tokens()
        self._steps += 1
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
        """Forget the tokens that no beam continues.

        Beams of one search share most of their past, so the tokens in use grow by about one a step and the
        tokens read by B.  Those of a question that remain keep their order, at the beginning of its past,
        and masked places follow up to those of the question with most, and to a multiple of 16.  So when
        tokens move, and where to, depends on a question's own beams, and masked places add exact zeros to
        its sums (docs/concepts/batches.md).
        """
        live: BoolArray = np.any(self._own_past, axis=1)  # [Q, P]
        counts = np.sum(live, axis=1)
        places = -(-int(counts.max()) // ALIGNED) * ALIGNED
        order = np.argsort(~live, axis=1, kind="stable")
        kept = np.zeros((len(live), places), np.int64)  # [Q, P'], in their order
        kept[:, : live.shape[1]] = order[:, :places]
        documents = self.encoded.context_attention_mask.shape[1]
        self._past = {
            name: to_device(_taken(value.numpy(), np.repeat(kept, documents, axis=0)), "cpu")
            for name, value in self._past.items()
        }
        is_token = np.arange(places) < counts[:, None]
        self._own_past = np.take_along_axis(self._own_past, kept[:, None], axis=2) & is_token[:, None]


def _taken(values: NDArray[Any], places: IntArray) -> NDArray[Any]:
    """``values`` [N, H, P, K] at each row's own ``places`` [N, P']."""
    n, h, _, k = values.shape
    found = np.empty((n, h, places.shape[1], k), values.dtype)
    for row, own in enumerate(places):
        np.take(values[row], own, axis=1, out=found[row])
    return found


def _with_own_tokens(own_past: BoolArray, *, chained: bool = False) -> BoolArray:
    """[Q, B, P] -> [Q, B, P+B]: every beam reads its own new token as well, and in a chain those before."""
    q, b, _ = own_past.shape
    new = np.tri(b, dtype=np.bool_) if chained else np.eye(b, dtype=np.bool_)
    own = np.broadcast_to(new, (q, b, b))
    return np.concatenate([own_past, own], axis=2)
