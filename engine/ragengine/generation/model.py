"""The generator's graphs behind two calls: read the documents, then step by step.

Everything that is large (cross-attention, the cache) stays in OrtValues on the device; what crosses to
the host a step is a few candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import GENERATOR_GRAPHS, Bundle
from ragengine.errors import GraphOutputError
from ragengine.generation.batching import batches_by_length
from ragengine.sessions import Device, InferenceSession, OrtValue, create_session, resolve_device

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """D encoded documents for each of Q questions, and the past of the beams that read them.

    The past holds P tokens, all that the beams of all steps have read, in that order; ``own_past`` says which
    of them each of the B beams of the last step continues, so that no beam's cache is ever reordered.

    cross     each layer's cross-attention key and value, float32 [Q·D, H, S, K]
    past      each layer's self-attention key and value, float32 [Q·D, H, P, K]
    own_past  bool [Q, B, P]
    length    T, the tokens that each beam has read
    """

    context_attention_mask: OrtValue
    cross: dict[str, OrtValue]
    past: dict[str, OrtValue]
    own_past: BoolArray
    length: int

    def by_document(self) -> "Reading":
        """The same documents as Q·D questions of one document each; nothing may have been decoded yet."""
        if self.length:
            raise ValueError(f"{self.length} tokens are decoded already; split a reading before the first.")
        q, d, s = self.context_attention_mask.shape()
        mask = self.context_attention_mask.numpy().reshape(q * d, 1, s)
        return replace(
            self,
            context_attention_mask=OrtValue.ortvalue_from_numpy(
                mask, self.context_attention_mask.device_name()
            ),
            own_past=np.zeros((q * d, 1, 0), np.bool_),
        )

    def without_dead_tokens(self) -> "Reading":
        """The same past without the tokens that no beam goes on from, once they are more than half of it.

        Beams of one search share most of their past, so what lives grows by about one token a step and
        what is read by B.  Waiting for half keeps the copying below one token's worth a step.
        """
        live = self.own_past.any(axis=1)  # [Q, P]
        most = int(live.sum(axis=1).max(initial=0))
        if live.shape[1] < 2 * most + _SMALL_PAST:
            return self
        kept = np.argsort(~live, axis=1, kind="stable")[:, :most]  # [Q, P'], in their order
        rows = np.arange(len(kept))[:, None]
        documents = self.context_attention_mask.shape()[1]
        by_row = np.repeat(kept, documents, axis=0)[:, None, :, None]  # [Q·D, 1, P', 1]
        past = {
            name: OrtValue.ortvalue_from_numpy(np.take_along_axis(value.numpy(), by_row, axis=2))
            for name, value in self.past.items()
        }
        own_past = self.own_past.transpose(0, 2, 1)[rows, kept].transpose(0, 2, 1)
        return replace(self, past=past, own_past=np.ascontiguousarray(own_past))


@dataclass(frozen=True)
class Step:
    """What one decoding step gives; candidates best first, C of them per question.

    scores           float32 [Q, C]         beam score + log p(y_t | x, y_<t)
    beams, tokens    int64 [Q, C]
    log_probs        float32 [Q, D, C]      log p(y_t | x, z, y_<t)
    probe_log_probs  float32 [Q, D, B, P]   the same for the tokens that were asked for
    """

    scores: FloatArray
    beams: IntArray
    tokens: IntArray
    log_probs: FloatArray
    probe_log_probs: FloatArray


class GeneratorModel:
    """The encoder and decoder sessions of a bundle.  Stateless between calls, so threads may share it."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        low_memory: bool = False,
    ) -> None:
        self.spec = bundle.manifest.generator
        self.device: Literal["cpu", "cuda"] = resolve_device(device)
        folder = self.spec.path
        self._encoder, self._cross_projections, self._decoder = (
            create_session(
                bundle.file(folder, name), device=self.device, threads=threads, low_memory=low_memory
            )
            for name in GENERATOR_GRAPHS
        )
        layers = [f"{part}_{i}" for i in range(self.spec.num_decoder_layers) for part in ("key", "value")]
        self._cross = [f"cross_{name}" for name in layers]
        self._past = [f"past_{name}" for name in layers]
        self._present = [f"present_{name}" for name in layers]

    def read(self, context_input_ids: IntArray, context_attention_mask: IntArray) -> Reading:
        """Encode documents: token ids and mask int64 [Q, D, S]."""
        q, d, s = context_input_ids.shape
        states = self._encoded(context_input_ids.reshape(q * d, s), context_attention_mask.reshape(q * d, s))
        cross = self._run(
            self._cross_projections, {"states": states}, dict.fromkeys(self._cross, self.device)
        )
        empty = self._value(np.empty((q * d, self.spec.num_heads, 0, self.spec.head_size), np.float32))
        past = dict.fromkeys(self._past, empty)
        return Reading(self._value(context_attention_mask), cross, past, np.zeros((q, 1, 0), np.bool_), 0)

    def _encoded(self, ids: IntArray, mask: IntArray) -> OrtValue:
        """The encoder's states of documents, float32 [N, S, d_model], in batches of similar length."""
        n, s = ids.shape
        batches = batches_by_length(mask)
        if self.device != "cpu" or len(batches) == 1:
            feeds = {"input_ids": self._value(ids), "attention_mask": self._value(mask)}
            return self._run(self._encoder, feeds, {"states": self.device})["states"]
        states = np.zeros((n, s, self.spec.num_heads * self.spec.head_size), np.float32)
        for rows, length in batches:
            feeds = {"input_ids": ids[rows, :length], "attention_mask": mask[rows, :length]}
            states[rows, :length] = self._encoder.run(["states"], feeds)[0]
        return self._value(states)

    def step(
        self,
        reading: Reading,
        token_ids: IntArray,
        beam_indices: IntArray,
        *,
        log_weights: FloatArray,
        beam_scores: FloatArray,
        num_candidates: int,
        probe_ids: IntArray,
    ) -> tuple[Step, Reading]:
        """Let every beam read its last token and return the best continuations.

        token_ids and beam_indices int64 [Q, B] (which beam of the past each continues), log_weights
        float32 [Q, D, B], beam_scores float32 [Q, B], probe_ids int64 [Q, B, P].
        """
        reading = replace(reading, own_past=_inherited(reading.own_past, beam_indices))
        if self.device == "cpu":
            reading = reading.without_dead_tokens()
        own_past = _with_own_tokens(reading.own_past)
        feeds = {
            "token_ids": self._value(token_ids),
            "own_past": self._value(own_past),
            "position": self._value(np.array([reading.length], np.int64)),
            "context_attention_mask": reading.context_attention_mask,
            "log_weights": self._value(log_weights),
            "beam_scores": self._value(beam_scores),
            "num_candidates": self._value(np.array([num_candidates], np.int64)),
            "probe_ids": self._value(probe_ids),
            **reading.cross,
            **reading.past,
        }
        outputs = self._run(self._decoder, feeds, _CANDIDATES | dict.fromkeys(self._present, self.device))
        step = Step(*(outputs[name].numpy() for name in _CANDIDATES))
        if np.isnan(step.scores).any() or np.isnan(step.probe_log_probs).any():
            raise GraphOutputError("The generator returned NaN; its weights or its inputs are damaged.")
        past = {past: outputs[present] for past, present in zip(self._past, self._present, strict=True)}
        reading = replace(reading, past=past, own_past=own_past, length=reading.length + 1)
        return step, reading

    def _run(
        self, session: InferenceSession, feeds: Mapping[str, OrtValue], outputs: Mapping[str, str]
    ) -> dict[str, OrtValue]:
        """Run with every input and output bound; ``outputs`` maps names to the device they stay on."""
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name, device in outputs.items():
            binding.bind_output(name, device)
        session.run_with_iobinding(binding)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def _value(self, array: NDArray[Any]) -> OrtValue:
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device)


def _inherited(own_past: BoolArray, beam_indices: IntArray) -> BoolArray:
    """What each beam has read before this step, bool [Q, B, P]: the past of the beam that it continues."""
    inherited: BoolArray = own_past[np.arange(len(beam_indices))[:, None], beam_indices]
    return inherited


def _with_own_tokens(own_past: BoolArray) -> BoolArray:
    """[Q, B, P] -> [Q, B, P+B]: every beam reads its own new token as well."""
    q, b, _ = own_past.shape
    own = np.broadcast_to(np.eye(b, dtype=np.bool_), (q, b, b))
    return np.concatenate([own_past, own], axis=2)


_SMALL_PAST = 8  # tokens; less is not worth copying
_CANDIDATES = dict.fromkeys(
    ("candidate_scores", "candidate_beams", "candidate_tokens", "candidate_log_probs", "probe_log_probs"),
    "cpu",
)
