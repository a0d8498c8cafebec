"""The generator's graphs behind three calls: read the documents, start beams over them, then step by step.

Everything that is large (keys and values of documents and past) stays in OrtValues on the device; what
crosses to the host a step is a few candidates.
"""

from typing import Literal

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.device import graph_device
from ragengine.bundle.manifest import STEP_GRAPH
from ragengine.errors import DeviceError, GraphOutputError
from ragengine.generation.batching import batches_by_length
from ragengine.generation.decoders.base import Decoding, EncodedDocuments, Step, StepInputs
from ragengine.generation.decoders.buckets import GraphNumbers, padded_source
from ragengine.generation.decoders.dynamic import DynamicDecoder
from ragengine.generation.decoders.static import StaticDecoder
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.runtime.devices import Device, ResolvedDevice
from ragengine.runtime.lifecycle import awaited_at_exit
from ragengine.runtime.sessions import (
    InferenceSession,
    OrtValue,
    create_session,
    run_arrays,
    run_bound,
    to_device,
)


class GeneratorModel:
    """The encoder and decoder sessions of a bundle.  Threads may share it."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        low_memory: bool = False,
        cuda_graphs: bool = True,
        decoder: Literal["dynamic", "static"] | None = None,
    ) -> None:
        """``decoder`` is the fixed one on CUDA and the growing one on a CPU where not given."""
        self.spec = bundle.manifest.generator
        self.device: ResolvedDevice = graph_device(bundle, device)
        self._static = (self.device == "cuda") if decoder is None else decoder == "static"
        if self._static and f"{self.spec.path}/{STEP_GRAPH}" not in bundle.manifest.files:
            raise DeviceError(
                f"{bundle.path} has no {STEP_GRAPH}, which {self.device} needs; export it again "
                "in fp32 or fp16 with this version, or use the CPU."
            )

        def session(name: str, cuda_graphs: bool = False) -> InferenceSession:
            return create_session(
                bundle.file(self.spec.path, name),
                device=self.device,
                threads=threads,
                low_memory=low_memory,
                cuda_graphs=cuda_graphs,
            )

        self._encoder, cross = session("encoder.onnx"), session("cross.onnx")
        self._decoder: StaticDecoder | DynamicDecoder
        if self._static:
            step = session(STEP_GRAPH, cuda_graphs)
            self._decoder = StaticDecoder(cross, step, self.spec, self.device, GraphNumbers())
        else:
            self._decoder = DynamicDecoder(cross, session("decoder.onnx"), self.spec)

    def read(
        self, context_input_ids: IntArray, context_attention_mask: IntArray, stop: Stop = NEVER
    ) -> EncodedDocuments:
        """Encode documents: token ids and mask int64 [Q, D, S]."""
        if self._static:
            context_input_ids, context_attention_mask = (
                self._padded(array) for array in (context_input_ids, context_attention_mask)
            )
        q, d, s = context_input_ids.shape
        states = self._encoded(
            context_input_ids.reshape(q * d, s), context_attention_mask.reshape(q * d, s), stop
        )
        return EncodedDocuments(context_attention_mask, self._decoder.memory(states), stop)

    def start(self, reading: EncodedDocuments, *, beams: int, steps: int) -> Decoding:
        """Beams over a reading: at most ``beams`` a question and ``steps`` steps."""
        reading.stop.check("after the documents were read")
        if isinstance(self._decoder, StaticDecoder):
            return self._decoder.start(reading, beams, steps)
        return self._decoder.start(reading)

    @awaited_at_exit
    def step(
        self,
        decoding: Decoding,
        token_ids: IntArray,
        beam_indices: IntArray,
        *,
        log_weights: FloatArray,
        beam_scores: FloatArray,
        num_candidates: int,
        probe_ids: IntArray,
    ) -> Step:
        """Let every beam read its last token and return the best continuations.

        token_ids and beam_indices int64 [Q, B] (which beam of the step before each continues), log_weights
        float32 [Q, D, B], beam_scores float32 [Q, B], probe_ids int64 [Q, B, P].
        """
        decoding.reading.stop.check(f"after {decoding.length} tokens")
        inputs = StepInputs(token_ids, beam_indices, log_weights, beam_scores, num_candidates, probe_ids)
        step = decoding.step(inputs)
        self._check(step, inputs)
        return step

    def _check(self, step: Step, asked: StepInputs) -> None:
        """Refuse what no sound graph returns; every row of logits is behind at least one probe."""
        if step.shapes != asked.result_shapes:
            raise GraphOutputError("The generator returned arrays of wrong shapes; its graphs are damaged.")
        if np.isnan(step.scores).any() or np.isnan(step.probe_log_probs).any():
            raise GraphOutputError("The generator returned NaN; its weights or its inputs are damaged.")
        if (step.probe_log_probs > _ROUNDING).any() or (step.scores == np.inf).any():
            raise GraphOutputError("The generator returned a probability above 1; its graphs are damaged.")
        beams = asked.token_ids.shape[1]
        if not _within(step.beams, beams) or not _within(step.tokens, self.spec.vocab_size):
            raise GraphOutputError(
                "The generator returned beams or tokens that there are not; its graphs are damaged."
            )

    def _encoded(self, ids: IntArray, mask: IntArray, stop: Stop) -> OrtValue:
        """The encoder's states of documents, [N, S, d_model], in batches of similar length."""
        n, s = ids.shape
        batches = batches_by_length(mask)
        if self.device != "cpu" or len(batches) == 1:
            stop.check("before the documents were read")
            feeds = {"input_ids": to_device(ids, self.device), "attention_mask": to_device(mask, self.device)}
            return run_bound(self._encoder, feeds, {"states": self.device})["states"]
        width = self.spec.num_heads * self.spec.head_size
        states = np.zeros((n, s, width), self._decoder.dtype)
        for number, (rows, length) in enumerate(batches):
            stop.check(f"after {number} of {len(batches)} batches of documents were read")
            feeds = {"input_ids": ids[rows, :length], "attention_mask": mask[rows, :length]}
            found = run_arrays(self._encoder, feeds, "states")
            if found.shape != (len(rows), length, width):
                raise GraphOutputError("The generator's states have a wrong shape; its graphs are damaged.")
            states[rows, :length] = found
        return to_device(states, self.device)

    def _padded(self, array: IntArray) -> IntArray:
        """``array`` [Q, D, S] with zeros up to a source length that a bucket has; the mask hides them."""
        length = array.shape[2]
        missing = padded_source(length, self.spec.max_positions) - length
        return np.pad(array, ((0, 0), (0, 0), (0, missing)))


_ROUNDING = 1e-3  # of a log-probability, which is at most 0


def _within(numbers: IntArray, limit: int) -> bool:
    return numbers.size == 0 or (int(numbers.min()) >= 0 and int(numbers.max()) < limit)
