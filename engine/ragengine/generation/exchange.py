"""What crosses between host and device in a step of the fixed decoder: one buffer each way."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.generation.decoding import MIXTURE_OUTPUTS, BoolArray, IntArray, Step, StepInputs
from ragengine.sessions import OrtValue, ResolvedDevice, bind_memory, run_binding, run_options, to_device

if TYPE_CHECKING:
    from ragengine.generation.fixed import Workspace

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


class Exchange:
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
