"""The decoder with room for a whole search from the start (step.onnx): what a CUDA graph needs.

Every shape is a bucket's, every address stays, no node computes a shape.  A step sends one small buffer to
the device and takes one back: the few best candidates.  On a CPU the same code runs, to be tested there.
"""

import weakref
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import GeneratorSpec
from ragengine.generation.buckets import NOT_CAPTURED, Bucket, GraphNumbers, power_of_two
from ragengine.generation.decoding import BoolArray, Reading, Step, StepInputs, inherited
from ragengine.generation.exchange import Exchange
from ragengine.sessions import InferenceSession, OrtValue, ResolvedDevice, bind_memory, run_binding, to_device

Values: TypeAlias = dict[str, OrtValue]
IntArray: TypeAlias = NDArray[np.int64]

_LEAST_CANDIDATES = 16


class FixedDecoder:
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

    def start(self, reading: Reading, beams: int, steps: int) -> "FixedPast":
        """Up to ``beams`` beams a question that have read nothing yet, with room for ``steps`` steps."""
        q, d, s = reading.context_attention_mask.shape
        workspace = self._taken(Bucket.holding(q, d, beams, s, steps))
        past = FixedPast(workspace, reading)
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

    def __init__(self, decoder: FixedDecoder, bucket: Bucket) -> None:
        self.bucket = bucket
        self.worker = decoder.worker
        self.session, self.spec, self.device = decoder.step_session, decoder.spec, decoder.device
        self._graphs = decoder.graphs
        self._exchanges: dict[tuple[int, int], Exchange] = {}
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

    def read(self, reading: Reading, cross: InferenceSession) -> None:
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

    def exchange(self, candidates: int, probes: int) -> Exchange:
        """The buffers for at least so many candidates a question and probes a beam."""
        most = self.bucket.beams * self.spec.vocab_size
        sizes = min(power_of_two(max(candidates, _LEAST_CANDIDATES)), most), power_of_two(probes)
        if sizes not in self._exchanges:
            self._exchanges[sizes] = Exchange(self, *sizes, graph=self._graphs.take(self.bucket))
        return self._exchanges[sizes]


class FixedPast:
    """A :class:`~ragengine.generation.decoding.Decoding` in a workspace.

    Step t writes the tokens of beam b at slot t·B + b of the past; ``own_past`` bool [Q, B, P].
    """

    def __init__(self, workspace: Workspace, reading: Reading) -> None:
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
