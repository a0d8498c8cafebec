"""The generator's graphs behind three calls: encode documents, start beams over them, then step by step.

Everything that is large (keys and values of documents and past) stays in OrtValues on the device; a step
brings a few candidates to the host.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.device import graph_device
from ragengine.errors import DeviceError, GraphOutputError
from ragengine.generation.batching import ROWS, batches_by_length
from ragengine.generation.decoders.base import (
    Decoder,
    Decoding,
    EncodedDocuments,
    OpenSession,
    Result,
    StepInputs,
    StepOutputs,
)
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

DecoderKind = Literal["dynamic", "static"]

ROUNDING = 1e-3
"""How far above 0 a log-probability may be, by rounding."""


class GeneratorModel:
    """The encoder and the decoder of a bundle.  Threads may share it."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        low_memory: bool = False,
        cuda_graphs: bool = True,
        decoder: DecoderKind | None = None,
    ) -> None:
        """``decoder`` is the static one on CUDA and the dynamic one on a CPU where not given."""
        self.spec = bundle.manifest.generator
        self.device: ResolvedDevice = graph_device(bundle, device)
        captured = cuda_graphs

        def open_session(name: str, *, cuda_graphs: bool = False) -> InferenceSession:
            if f"{self.spec.path}/{name}" not in bundle.manifest.files:
                raise DeviceError(
                    f"{bundle.path} has no {name}, which {self.device} needs; export it again in fp32 or "
                    "fp16 with this version, or use the CPU."
                )
            return create_session(
                bundle.file(self.spec.path, name),
                device=self.device,
                threads=threads,
                low_memory=low_memory,
                cuda_graphs=cuda_graphs and captured,
            )

        kind = decoder or ("static" if self.device == "cuda" else "dynamic")
        self._decoder = self._open_decoder(kind, open_session)
        self._encoder = open_session("encoder.onnx")
        self._rows_at_once = 0 if bundle.manifest.texts_share_a_scale else ROWS

    def encode_documents(
        self, context_input_ids: IntArray, context_attention_mask: IntArray, stop: Stop = NEVER
    ) -> EncodedDocuments:
        """Encode documents: token ids and mask int64 [Q, D, S]."""
        q, d, s = context_input_ids.shape
        missing = self._decoder.source_length(s) - s
        if missing:
            wide = ((0, 0), (0, 0), (0, missing))
            context_input_ids = np.pad(context_input_ids, wide)
            context_attention_mask = np.pad(context_attention_mask, wide)
        rows = (q * d, s + missing)
        states = self._encoded(context_input_ids.reshape(rows), context_attention_mask.reshape(rows), stop)
        encoded = EncodedDocuments(context_attention_mask, self._decoder.memory(states))
        stop.check("after the documents were read")
        return encoded

    @property
    def reads_chains(self) -> bool:
        """Whether a step can read several tokens of one output (:attr:`StepInputs.chained`)."""
        return self._decoder.reads_chains

    def start(self, encoded: EncodedDocuments, *, beams: int, steps: int) -> Decoding:
        """Beams over encoded documents: at most ``beams`` a question and ``steps`` steps."""
        return self._decoder.start(encoded, beams=beams, steps=steps)

    def run_search(self, search: Callable[[], Result]) -> Result:
        """What ``search`` returns or raises, run in the thread in which its steps cost least."""
        return self._decoder.run_search(search)

    @awaited_at_exit
    def decode_step(self, decoding: Decoding, inputs: StepInputs, stop: Stop = NEVER) -> StepOutputs:
        """Let every beam read its last token and return the best continuations.

        Raises :class:`GraphOutputError` for outputs that no sound graph returns.
        """
        stop.check(f"after {decoding.length} tokens")
        outputs = decoding.advance(inputs)
        self._check(outputs, inputs)
        return outputs

    def _open_decoder(self, kind: DecoderKind, open_session: OpenSession) -> Decoder:
        if kind == "static":
            from ragengine.generation.decoders.static import StaticDecoder  # a CPU has no use for it

            return StaticDecoder(open_session, self.spec, self.device)
        from ragengine.generation.decoders.dynamic import DynamicDecoder

        return DynamicDecoder(open_session, self.spec)

    def _check(self, outputs: StepOutputs, inputs: StepInputs) -> None:
        """Refuse what no sound graph returns; every row of logits is behind at least one probe."""
        if outputs.shapes != inputs.output_shapes:
            raise GraphOutputError("The generator returned arrays of wrong shapes; its graphs are damaged.")
        highest, likeliest = outputs.scores.max(), outputs.probe_log_probs.max()  # NaN where there is one
        if np.isnan(highest) or np.isnan(likeliest):
            raise GraphOutputError("The generator returned NaN; its weights or its inputs are damaged.")
        if likeliest > ROUNDING or highest == np.inf:
            raise GraphOutputError("The generator returned a probability above 1; its graphs are damaged.")
        beams = inputs.token_ids.shape[1]
        if not _within(outputs.beams, beams) or not _within(outputs.tokens, self.spec.vocab_size):
            raise GraphOutputError(
                "The generator returned a beam index or token id out of range; its graphs are damaged."
            )

    def _encoded(self, ids: IntArray, mask: IntArray, stop: Stop) -> OrtValue:
        """The encoder's states of documents, [N, S, d_model], in batches of similar length.

        Each document by itself and without its padding where a batch would share a scale.
        """
        n, s = ids.shape
        batches = batches_by_length(mask, self._rows_at_once)
        if self.device != "cpu" or (len(batches) == 1 and batches[0][1] == s):
            stop.check("before the documents were read")
            feeds = {"input_ids": to_device(ids, self.device), "attention_mask": to_device(mask, self.device)}
            return run_bound(self._encoder, feeds, {"states": self.device})["states"]
        width = self.spec.width
        states: FloatArray = np.zeros((n, s, width), self._decoder.dtype)
        for number, (rows, length) in enumerate(batches):
            stop.check(f"after {number} of {len(batches)} batches of documents were read")
            found = run_arrays(
                self._encoder,
                {"input_ids": ids[rows, :length], "attention_mask": mask[rows, :length]},
                "states",
            )
            if found.shape != (len(rows), length, width):
                raise GraphOutputError("The encoder's states have a wrong shape; its graph is damaged.")
            states[rows, :length] = found
        return to_device(states, self.device)


def _within(numbers: IntArray, limit: int) -> bool:
    return bool(numbers.view(np.uint64).max() < limit)  # a negative one is a very large one
