"""The decoder with room for a whole search from the start (step.onnx): what a CUDA graph needs.

Every shape is a bucket's, every address stays, no node computes a shape.  A step sends one small buffer to
the device and takes one back: the few best candidates.  On a CPU the same code runs, to be tested there.
"""

import weakref
from collections import defaultdict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import BoolArray, IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.generation.decoders.base import MIXTURE_OUTPUTS, EncodedDocuments, Step, StepInputs, inherited
from ragengine.generation.decoders.buckets import NOT_CAPTURED, Bucket, GraphNumbers, power_of_two
from ragengine.runtime.devices import ResolvedDevice
from ragengine.runtime.sessions import (
    InferenceSession,
    OrtValue,
    bind_memory,
    run_binding,
    run_options,
    to_device,
)

Values: TypeAlias = dict[str, OrtValue]

_LEAST_CANDIDATES = 16


class StaticDecoder:
    """The sessions of the fixed decoder and its workspaces.  Threads may share it.

    onnxruntime keeps the CUDA graphs that a thread captures with that thread, so all steps run in one.
    """

    def __init__(
        self,
        cross: InferenceSession,
        step: InferenceSession,
        spec: GeneratorSpec,
        device: ResolvedDevice,
        graphs: GraphNumbers,
    ) -> None:
        self.step_session = step
        self.spec = spec
        self.device: ResolvedDevice = device
        self.graphs = graphs
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="ragengine-step")
        weakref.finalize(self, self.worker.shutdown, wait=False)
        self._cross = cross
        self._free: defaultdict[Bucket, deque[Workspace]] = defaultdict(deque)
        half = any(value.type == "tensor(float16)" for value in step.get_inputs())
        self.dtype: type[np.floating[Any]] = np.float16 if half else np.float32

    def memory(self, states: OrtValue) -> Values:
        """The encoder's states [Q·D, S, d_model]: keys and values are made where a search needs them."""
        return {"states": states}

    def start(self, reading: EncodedDocuments, beams: int, steps: int) -> "StaticPast":
        """Up to ``beams`` beams a question that have read nothing yet, with room for ``steps`` steps."""
        q, d, s = reading.context_attention_mask.shape
        workspace = self._taken(Bucket.holding(q, d, beams, s, steps))
        past = StaticPast(workspace, reading)
        weakref.finalize(past, self._give_back, workspace).atexit = False
        workspace.worker.submit(workspace.read, reading, self._cross).result()
        return past

    def _taken(self, bucket: Bucket) -> "Workspace":
        try:
            return self._free[bucket].pop()
        except IndexError:
            return Workspace(self, bucket)

    def _give_back(self, workspace: "Workspace") -> None:
        """Keep a workspace that graphs are captured in: they hold its addresses.  Others are freed."""
        if workspace.is_captured:
            self._free[workspace.bucket].append(workspace)


class Workspace:
    """Buffers of one bucket on the device, used by one search at a time.

    context_bias  [Q·D, 1, B, S], 0 for a token of a document, very negative for padding
    cross         each layer's cross-attention key and value, [Q·D, H, S, K]
    past          each layer's self-attention key and value, [Q·D, H, P, K], written in place
    """

    def __init__(self, decoder: StaticDecoder, bucket: Bucket) -> None:
        self.bucket = bucket
        self.worker = decoder.worker
        self.session, self.spec, self.device = decoder.step_session, decoder.spec, decoder.device
        self._graphs = decoder.graphs
        self._exchanges: dict[tuple[int, int], StepBuffers] = {}
        self._dtype, s = decoder.dtype, bucket.source
        self.context_bias = to_device(np.zeros((bucket.rows, 1, bucket.beams, s), self._dtype), self.device)
        # Zeros, not whatever the memory holds: what is masked must still be finite.
        heads, size = self.spec.num_heads, self.spec.head_size
        names = [value.name for value in self.session.get_inputs()]
        self.cross, self.past = (
            {
                name: to_device(np.zeros((bucket.rows, heads, length, size), self._dtype), self.device)
                for name in names
                if name.startswith(kind)
            }
            for kind, length in (("cross_", s), ("past_", bucket.capacity))
        )

    @property
    def is_captured(self) -> bool:
        return any(exchange.graph != NOT_CAPTURED for exchange in self._exchanges.values())

    def read(self, reading: EncodedDocuments, cross: InferenceSession) -> None:
        """Make the keys and values of the documents, in place; the rows of padded questions stay."""
        q, d, s = reading.context_attention_mask.shape
        bias = np.zeros((self.bucket.rows, 1, self.bucket.beams, s), self._dtype)
        hidden = reading.context_attention_mask.reshape(q * d, 1, 1, s) == 0
        bias[: q * d] = np.where(hidden, np.finfo(self._dtype).min, 0)
        self.context_bias.update_inplace(bias)
        binding = cross.io_binding()
        binding.bind_ortvalue_input("states", reading.memory["states"])
        shape = (q * d, self.spec.num_heads, s, self.spec.head_size)
        for name, value in self.cross.items():
            bind_memory(binding.bind_output, name, value, self.device, shape=shape)
        run_binding(cross, binding)

    def exchange(self, candidates: int, probes: int) -> "StepBuffers":
        """The buffers for at least so many candidates a question and probes a beam."""
        most = self.bucket.beams * self.spec.vocab_size
        sizes = min(power_of_two(max(candidates, _LEAST_CANDIDATES)), most), power_of_two(probes)
        if sizes not in self._exchanges:
            self._exchanges[sizes] = StepBuffers(self, *sizes, graph=self._graphs.take(self.bucket))
        return self._exchanges[sizes]


class StaticPast:
    """A :class:`~ragengine.generation.decoders.base.Decoding` in a workspace.

    Step t writes the tokens of beam b at slot t·B + b of the past; ``own_past`` bool [Q, B, P].
    """

    def __init__(self, workspace: Workspace, reading: EncodedDocuments) -> None:
        self.reading = reading
        self.length = 0
        self._workspace = workspace
        q = len(reading.context_attention_mask)
        self._own_past: BoolArray = np.zeros((q, 1, workspace.bucket.capacity), np.bool_)

    def step(self, inputs: StepInputs) -> Step:
        """Let every beam read its last token."""
        bucket, beams = self._workspace.bucket, inputs.token_ids.shape[1]
        slots = self.length * bucket.beams + np.arange(bucket.beams)
        self._own_past = inherited(self._own_past, inputs.beam_indices)
        self._own_past[:, np.arange(beams), slots[:beams]] = True
        exchange = self._workspace.exchange(inputs.num_candidates, inputs.probe_ids.shape[2])
        exchange.fill(inputs, self._own_past, self.length, slots)
        self._workspace.worker.submit(exchange.run).result()
        self.length += 1
        return exchange.found(inputs)


Layout: TypeAlias = Mapping[str, tuple[tuple[int, ...], type[Any]]]

ALIGNMENT = 256  # bytes; what cudaMalloc aligns to


class Buffer:
    """Several small arrays in one piece of memory on the device, with a copy on the host."""

    def __init__(self, layout: Layout, device: ResolvedDevice) -> None:
        offsets, end = {}, 0
        for name, (shape, dtype) in layout.items():
            offsets[name] = end
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            end += -(-size // ALIGNMENT) * ALIGNMENT
        self._host = np.zeros(end, np.uint8)
        self._device = to_device(self._host, device)
        self._places = {name: (offsets[name], shape, dtype) for name, (shape, dtype) in layout.items()}
        self.arrays: dict[str, NDArray[Any]] = self._views(self._host)

    def bind(self, bind: Any, device: ResolvedDevice) -> None:
        """Bind every array by its address; ``bind`` is an IOBinding's ``bind_input`` or ``bind_output``."""
        for name, (offset, shape, dtype) in self._places.items():
            bind_memory(bind, name, self._device, device, shape=shape, dtype=dtype, offset=offset)

    def upload(self) -> None:
        self._device.update_inplace(self._host)

    def download(self) -> None:
        self.arrays = self._views(self._device.numpy())

    def _views(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {
            name: memory[offset : offset + int(np.prod(shape)) * np.dtype(dtype).itemsize]
            .view(dtype)
            .reshape(shape)
            for name, (offset, shape, dtype) in self._places.items()
        }


class StepBuffers:
    """A step of one workspace for a number of candidates and probes: bound once, run many times.

    ``graph`` is the number of its CUDA graph: onnxruntime captures its first run and replays it after.
    """

    def __init__(self, workspace: "Workspace", candidates: int, probes: int, *, graph: int) -> None:
        self.graph = graph
        bucket, self._session = workspace.bucket, workspace.session
        q, d, b, p = bucket.questions, bucket.documents, bucket.beams, bucket.capacity
        asked: Layout = {
            "token_ids": ((q, b), np.int64),
            "own_past": ((q, b, p), np.bool_),
            "position": ((1,), np.int64),
            "slots": ((b,), np.int64),
            "log_weights": ((q, d, b), np.float32),
            "beam_scores": ((q, b), np.float32),
            "best_scores": ((q, 1), np.float32),
            "probe_ids": ((q, b, probes), np.int64),
        }
        found: Layout = {
            "candidate_scores": ((q, candidates), np.float32),
            "candidate_beams": ((q, candidates), np.int64),
            "candidate_tokens": ((q, candidates), np.int64),
            "candidate_log_probs": ((q, d, candidates), np.float32),
            "probe_log_probs": ((q, d, b, probes), np.float32),
        }
        self._asked, self._found = Buffer(asked, workspace.device), Buffer(found, workspace.device)
        self._binding = self._session.io_binding()
        self._asked.bind(self._binding.bind_input, workspace.device)
        self._found.bind(self._binding.bind_output, workspace.device)
        for name, value in (workspace.cross | workspace.past).items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in workspace.past.items():  # the present is the past: written in place
            self._binding.bind_ortvalue_output(name.replace("past_", "present_"), value)
        self._binding.bind_ortvalue_input("context_bias", workspace.context_bias)
        self._host_values = _shapes(workspace, candidates, probes)
        for name, value in self._host_values.items():
            self._binding.bind_ortvalue_input(name, value)
        self._run_options = run_options(graph) if workspace.device == "cuda" else None

    def fill(self, inputs: StepInputs, own_past: BoolArray, length: int, slots: IntArray) -> None:
        """Put in what a step is asked.  Beams and questions beyond are padding: no beam, score -inf."""
        arrays, (q, b) = self._asked.arrays, inputs.token_ids.shape
        arrays["token_ids"][:q, :b] = inputs.token_ids
        arrays["own_past"][:q, :b] = own_past
        arrays["position"][:] = length
        arrays["slots"][:] = slots
        arrays["log_weights"][:q, :, :b] = inputs.log_weights
        arrays["beam_scores"][:] = -np.inf
        arrays["beam_scores"][:q, :b] = inputs.beam_scores
        arrays["best_scores"][:] = arrays["beam_scores"].max(axis=1, keepdims=True)
        arrays["probe_ids"][:q, :b, : inputs.probe_ids.shape[2]] = inputs.probe_ids

    def run(self) -> None:
        """Send, compute, and take back."""
        self._asked.upload()
        run_binding(self._session, self._binding, self._run_options)
        self._found.download()

    def found(self, inputs: StepInputs) -> Step:
        """What was asked for, without the padding."""
        arrays, (q, b) = self._found.arrays, inputs.token_ids.shape
        scores, beams, tokens, log_probs, probes = (arrays[name] for name in MIXTURE_OUTPUTS)
        few = slice(inputs.num_candidates)
        return Step(
            scores=scores[:q, few].copy(),
            # a candidate that no beam made has the score -inf, and may name a padded beam
            beams=np.minimum(beams[:q, few], b - 1),
            tokens=tokens[:q, few].copy(),
            log_probs=log_probs[:q, :, few].copy(),
            probe_log_probs=probes[:q, :, :b, : inputs.probe_ids.shape[2]].copy(),
        )


def _shapes(workspace: "Workspace", candidates: int, probes: int) -> dict[str, OrtValue]:
    """The shapes that the graph takes instead of computing them; CUDA's kernels read them on the host."""
    bucket, spec = workspace.bucket, workspace.spec
    q, d, b, rows = bucket.questions, bucket.documents, bucket.beams, bucket.rows
    d_model = spec.num_heads * spec.head_size
    values = {
        "num_candidates": (candidates,),
        "shape_each_document": (q, d, 1, 1),
        "shape_by_row": (rows, b, d_model),
        "shape_by_question": (q, d, b, d_model),
        "shape_past_bias": (rows, 1, b, bucket.capacity),
        "shape_candidates": (q, d, candidates),
        "shape_probes": (q, b, d, probes),
        "shape_update": (rows, spec.num_heads, b, spec.head_size),
    }
    return {name: to_device(np.array(value, np.int64), "cpu") for name, value in values.items()}
