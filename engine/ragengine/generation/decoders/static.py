"""The decoder whose KV cache has room for a whole search from the start (step.onnx): for CUDA graphs.

Every shape is a bucket's, every address stays, no node computes a shape.  A step sends one small buffer to
the device and takes one back: the few best candidates.  On a CPU the same code runs, to be tested there.
"""

import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import BoolArray, IntArray
from ragengine.bundle.manifest import STEP_GRAPH, GeneratorSpec
from ragengine.bundle.onnx_reader import FLOAT, FLOAT16
from ragengine.bundle.signatures import (
    HIDDEN_HALF,
    MIXTURE_OUTPUTS,
    array_of,
    generator_signatures,
    host_values,
    layer_names,
    memory_values,
)
from ragengine.generation.decoders.base import (
    EncodedDocuments,
    OpenSession,
    Result,
    StepInputs,
    StepOutputs,
    inherited,
)
from ragengine.generation.decoders.buckets import (
    NOT_CAPTURED,
    Bucket,
    GraphNumbers,
    padded_source,
    power_of_two,
)
from ragengine.generation.decoders.step_thread import StepThread
from ragengine.runtime.devices import ResolvedDevice
from ragengine.runtime.sessions import (
    InferenceSession,
    OrtValue,
    bind_memory,
    device_work,
    run_binding,
    run_options,
    to_device,
)

ALIGNMENT = 256  # bytes; what cudaMalloc aligns to
_LEAST_CANDIDATES = 16

BufferLayout: TypeAlias = Mapping[str, tuple[tuple[int, ...], type[Any]]]
"""The arrays in a :class:`Buffer`: shape and type by name."""


class StaticDecoder:
    """A :class:`~ragengine.generation.decoders.base.Decoder` with buffers that are kept between searches.

    onnxruntime keeps the CUDA graphs that a thread captures with that thread, so all steps run in one.
    """

    reads_chains = False  # its graph takes one position for all beams

    def __init__(self, open_session: OpenSession, spec: GeneratorSpec, device: ResolvedDevice) -> None:
        self.spec = spec
        self.device: ResolvedDevice = device
        self.step_session = open_session(STEP_GRAPH, cuda_graphs=True)
        self.graphs = GraphNumbers()
        self.thread = StepThread()
        self._cross = open_session("cross.onnx")
        self._free: defaultdict[Bucket, deque[DecoderBuffers]] = defaultdict(deque)
        half = any(value.type == "tensor(float16)" for value in self.step_session.get_inputs())
        self.dtype: type[np.floating[Any]] = np.float16 if half else np.float32
        self.signature = generator_signatures(spec, FLOAT16 if half else FLOAT)[STEP_GRAPH]

    def source_length(self, length: int) -> int:
        """``length`` padded up to that of a bucket; the mask hides what is added."""
        return padded_source(length, self.spec.longest)

    def memory(self, states: OrtValue) -> dict[str, OrtValue]:
        """The encoder's states [Q·D, S, d_model]: keys and values are made where a search needs them."""
        return {"states": states}

    def start(self, encoded: EncodedDocuments, *, beams: int, steps: int) -> "StaticDecoding":
        """Up to ``beams`` beams a question that have read nothing yet, with room for ``steps`` steps."""
        q, d, s = encoded.context_attention_mask.shape
        buffers = self._taken(Bucket.holding(q, d, beams, s, steps))
        decoding = StaticDecoding(buffers, encoded)
        weakref.finalize(decoding, self._give_back, buffers).atexit = False
        self.thread.step(partial(buffers.project, encoded, self._cross))
        return decoding

    def run_search(self, search: Callable[[], Result]) -> Result:
        """Run a search where its steps run, if no other is there."""
        return self.thread.search(search)

    def _taken(self, bucket: Bucket) -> "DecoderBuffers":
        try:
            return self._free[bucket].pop()
        except IndexError:
            return DecoderBuffers(self, bucket)

    def _give_back(self, buffers: "DecoderBuffers") -> None:
        """Keep buffers that graphs are captured in: the graphs hold their addresses.  Free the others."""
        if buffers.is_captured:
            self._free[buffers.bucket].append(buffers)


class StaticDecoding:
    """A :class:`~ragengine.generation.decoders.base.Decoding` in the buffers of a bucket.

    Step t writes the tokens of beam b at slot t·B + b of the past; ``own_past`` bool [Q, B, P].
    """

    def __init__(self, buffers: "DecoderBuffers", encoded: EncodedDocuments) -> None:
        self.encoded = encoded
        self.length = 0
        self._buffers = buffers
        q = len(encoded.context_attention_mask)
        self._own_past: BoolArray = np.zeros((q, 1, buffers.bucket.capacity), np.bool_)
        self._rows = np.arange(q)  # where along the buffers' questions each of this search is

    def advance(self, inputs: StepInputs) -> StepOutputs:
        """Let every beam read its last token."""
        bucket, beams = self._buffers.bucket, inputs.token_ids.shape[1]
        slots = self.length * bucket.beams + np.arange(bucket.beams)
        self._own_past = inherited(self._own_past, inputs.beam_indices)
        self._own_past[:, np.arange(beams), slots[:beams]] = True
        buffers = self._buffers.for_step(inputs.num_candidates, inputs.probe_ids.shape[2])
        buffers.fill(inputs, self._rows, self._own_past, self.length, slots)
        self._buffers.thread.step(buffers.run)
        self.length += 1
        return buffers.outputs(inputs, self._rows)

    def keep(self, questions: IntArray) -> None:
        """The others become padding: the shapes of a bucket are what its graph was captured with."""
        self.encoded = self.encoded.of_questions(questions)
        self._own_past, self._rows = self._own_past[questions], self._rows[questions]


class DecoderBuffers:
    """Keys and values of one bucket on the device, used by one search at a time.

    context_bias  [Q·D, 1, B, S], 0 for a token of a document, very negative for padding
    cross         each layer's cross-attention key and value, [Q·D, H, S, K]
    past          each layer's self-attention key and value, [Q·D, H, P, K], written in place
    """

    def __init__(self, decoder: StaticDecoder, bucket: Bucket) -> None:
        self.bucket = bucket
        self.thread = decoder.thread
        self.session, self.spec, self.device = decoder.step_session, decoder.spec, decoder.device
        self.signature = decoder.signature
        self._graphs = decoder.graphs
        self._steps: dict[tuple[int, int], StepBuffers] = {}
        self._dtype = decoder.dtype
        self.context_bias = self._zeros("context_bias")
        self.cross, self.past = (
            {name: self._zeros(name) for name in names}
            for names in (memory_values(self.spec, FLOAT), layer_names("past", self.spec))
        )

    @property
    def is_captured(self) -> bool:
        """Whether a step of it has become a CUDA graph."""
        return any(step.graph != NOT_CAPTURED for step in self._steps.values())

    def project(self, encoded: EncodedDocuments, cross: InferenceSession) -> None:
        """Make the keys and values of the documents, in place; the rows of padded questions stay."""
        q, d, s = encoded.context_attention_mask.shape
        bias = np.zeros((self.bucket.rows, 1, self.bucket.beams, s), self._dtype)
        hidden = encoded.context_attention_mask.reshape(q * d, 1, 1, s) == 0
        least = HIDDEN_HALF if self._dtype == np.float16 else np.finfo(np.float32).min
        bias[: q * d] = np.where(hidden, least, 0)
        binding = cross.io_binding()
        binding.bind_ortvalue_input("states", encoded.memory["states"])
        shape = (q * d, self.spec.num_heads, s, self.spec.head_size)
        for name, value in self.cross.items():
            bind_memory(binding.bind_output, name, value, self.device, shape=shape)
        with device_work(self.device):
            self.context_bias.update_inplace(bias)
            run_binding(cross, binding)

    def for_step(self, candidates: int, probes: int) -> "StepBuffers":
        """The buffers of a step for at least so many candidates a question and probes a beam."""
        most = self.bucket.beams * self.spec.vocab_size
        sizes = min(power_of_two(max(candidates, _LEAST_CANDIDATES)), most), power_of_two(probes)
        if sizes not in self._steps:
            self._steps[sizes] = StepBuffers(self, *sizes, graph=self._graphs.take(self.bucket))
        return self._steps[sizes]

    def _zeros(self, name: str) -> OrtValue:
        """Zeros, not whatever the memory holds: what is masked must still be finite."""
        shape, dtype = array_of(self.signature.inputs[name], self.bucket.sizes)
        return to_device(np.zeros(shape, dtype), self.device)


class StepBuffers:
    """Inputs and outputs of a step for a number of candidates and probes: bound once, run many times.

    ``graph`` is the number of its CUDA graph: onnxruntime captures its first run and replays it after.
    """

    def __init__(self, decoder: DecoderBuffers, candidates: int, probes: int, *, graph: int) -> None:
        self.graph = graph
        self._session, device = decoder.session, decoder.device
        sizes = decoder.bucket.sizes | {"C": candidates, "probes": probes}
        given = {value.name for value in self._session.get_inputs()}
        self._shapes = {name: v for name, v in host_inputs(decoder.spec, sizes).items() if name in given}
        resident = decoder.cross | decoder.past | {"context_bias": decoder.context_bias}
        sent = {
            name: array_of(value, sizes)
            for name, value in decoder.signature.inputs.items()
            if name in given and name not in self._shapes and name not in resident
        }
        returned = {name: array_of(value, sizes) for name, value in MIXTURE_OUTPUTS.items()}
        self._sent, self._returned = Buffer(sent, device), Buffer(returned, device)
        self._binding = self._session.io_binding()
        self._sent.bind(self._binding.bind_input, device)
        self._returned.bind(self._binding.bind_output, device)
        for name, value in (self._shapes | resident).items():
            self._binding.bind_ortvalue_input(name, value)
        presents = layer_names("present", decoder.spec)
        for name, value in zip(presents, decoder.past.values(), strict=True):  # written in place
            self._binding.bind_ortvalue_output(name, value)
        self._device = device
        self._run_options = run_options(graph) if device == "cuda" else None
        self._will_capture = graph != NOT_CAPTURED

    def fill(
        self, inputs: StepInputs, rows: IntArray, own_past: BoolArray, length: int, slots: IntArray
    ) -> None:
        """Put in the inputs of a step, each question at its row.

        Other beams and questions are padding: no beam, score -inf.
        """
        arrays, b = self._sent.arrays, inputs.token_ids.shape[1]
        arrays["token_ids"][rows, :b] = inputs.token_ids
        arrays["own_past"][rows, :b] = own_past
        arrays["position"][:] = length
        arrays["slots"][:] = slots
        arrays["log_weights"][rows, :, :b] = inputs.log_weights
        arrays["beam_scores"][:] = -np.inf
        arrays["beam_scores"][rows, :b] = inputs.beam_scores
        arrays["best_scores"][:] = arrays["beam_scores"].max(axis=1, keepdims=True)
        arrays["probe_ids"][rows, :b, : inputs.probe_ids.shape[2]] = inputs.probe_ids

    def run(self) -> None:
        """Send, compute, and take back; the first time, capture."""
        with device_work(self._device, capture=self._will_capture):
            self._sent.upload()
            run_binding(self._session, self._binding, self._run_options)
            self._returned.download()
        self._will_capture = False

    def outputs(self, inputs: StepInputs, rows: IntArray) -> StepOutputs:
        """A copy of the last run's outputs for the questions at these rows, without the padding."""
        arrays, b = self._returned.arrays, inputs.token_ids.shape[1]
        scores, beams, tokens, log_probs, probes = (arrays[name] for name in MIXTURE_OUTPUTS)
        few = slice(inputs.num_candidates)
        return StepOutputs(
            scores=scores[rows, few],
            # a candidate that no beam made has the score -inf, and may name a padded beam
            beams=np.minimum(beams[rows, few], b - 1),
            tokens=tokens[rows, few],
            log_probs=log_probs[rows, :, few],
            probe_log_probs=probes[rows, :, :b, : inputs.probe_ids.shape[2]],
        )


class Buffer:
    """Several small arrays in one piece of memory on the device, with a copy on the host."""

    def __init__(self, layout: BufferLayout, device: ResolvedDevice) -> None:
        self._places: dict[str, tuple[int, tuple[int, ...], type[Any]]] = {}
        end = 0
        for name, (shape, dtype) in layout.items():
            self._places[name] = (end, shape, dtype)
            end += -(-_bytes(shape, dtype) // ALIGNMENT) * ALIGNMENT
        self._host = np.zeros(end, np.uint8)
        self._device = to_device(self._host, device)
        self.arrays: dict[str, NDArray[Any]] = self._views(self._host)

    def bind(self, bind: Any, device: ResolvedDevice) -> None:
        """Bind every array by its address; ``bind`` is an IOBinding's ``bind_input`` or ``bind_output``."""
        for name, (offset, shape, dtype) in self._places.items():
            bind_memory(bind, name, self._device, device, shape=shape, dtype=dtype, offset=offset)

    def upload(self) -> None:
        """Copy the host's arrays to the device."""
        self._device.update_inplace(self._host)

    def download(self) -> None:
        """Make :attr:`arrays` those of the device."""
        self.arrays = self._views(self._device.numpy())

    def _views(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {
            name: np.ndarray(shape, dtype, memory, offset)
            for name, (offset, shape, dtype) in self._places.items()
        }


def host_inputs(spec: GeneratorSpec, sizes: Mapping[str, int]) -> dict[str, OrtValue]:
    """The number of candidates, and the shapes that the graph takes instead of computing them.

    CUDA's kernels read them on the host.
    """
    values = host_values(spec, sizes)
    return {name: to_device(np.array(value, np.int64), "cpu") for name, value in values.items()}


def _bytes(shape: tuple[int, ...], dtype: type[Any]) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize
