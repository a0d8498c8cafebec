"""Scoring candidates again on a GPU that holds the stored vectors (docs/guides/gpu.md)."""

from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import DeviceError
from ragengine.retrieval.gpu.rescoring_graph import PATH
from ragengine.runtime.cuda_capture import CUDA_WORK
from ragengine.runtime.cuda_driver import DeviceMemory
from ragengine.runtime.lifecycle import leak_in_forks

_ROWS_AT_ONCE = 65536
# Gathered components that are widened to float64 at once, 8 bytes each, beside the 2 they are stored in.
_COMPONENTS_AT_ONCE = 16 << 20


class DeviceVectors:
    """Stored vectors, fp16 [N, E], copied to a device that computes their scores.

    Sums are float64 as on the host, in another order: rounded to float32 they are equal but for the last bit
    of a sum that lies between two numbers.  Safe to use from many threads; the copy is freed when nothing
    refers to this any more.
    """

    def __init__(self, vectors: HalfArray, *, cuda_device: int | None) -> None:
        """``cuda_device`` None uses ``vectors`` where they are, on the CPU.

        Raises :class:`DeviceError` where there is not enough memory or onnxruntime has no CUDA.
        """
        self._shape = vectors.shape
        self._device = cuda_device
        self._memory: HalfArray | DeviceMemory = vectors
        with CUDA_WORK.shared():
            self._session = _session(cuda_device)
            if cuda_device is not None:
                self._memory = _uploaded(vectors, cuda_device)
        leak_in_forks(self._session)

    def scores(self, questions: FloatArray, rows: RowArray) -> FloatArray:
        """Inner products of questions [Q, E] with their rows int64 [Q, K], each 0 to N-1: float32 [Q, K]."""
        scores = np.empty(rows.shape, np.float32)
        together = max(1, _COMPONENTS_AT_ONCE // max(1, rows.shape[1] * self._shape[1]))
        for start in range(0, len(rows), together):
            part = slice(start, start + together)
            scores[part] = self._run(questions[part], rows[part])
        return scores

    def _run(self, questions: FloatArray, rows: RowArray) -> FloatArray:
        binding = self._session.io_binding()
        address = self._memory.pointer if isinstance(self._memory, DeviceMemory) else self._memory.ctypes.data
        where = ("cpu", 0) if self._device is None else ("cuda", self._device)
        binding.bind_input("vectors", *where, np.float16, self._shape, address)
        binding.bind_cpu_input("questions", np.ascontiguousarray(questions))
        binding.bind_cpu_input("rows", np.ascontiguousarray(rows))
        binding.bind_output("scores", "cpu")
        with CUDA_WORK.shared():
            self._session.run_with_iobinding(binding)
            found: FloatArray = binding.copy_outputs_to_cpu()[0]
        return found


def _session(cuda_device: int | None) -> Any:
    import onnxruntime as ort

    from ragengine.runtime.devices import CUDA_PROVIDER, check_cuda

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if cuda_device is None:
        return ort.InferenceSession(PATH, options, providers=["CPUExecutionProvider"])
    check_cuda()
    # A node on the CPU would carry all vectors there for every question.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return ort.InferenceSession(
            PATH, options, providers=[(CUDA_PROVIDER, {"device_id": str(cuda_device)})]
        )
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        raise DeviceError(f"onnxruntime cannot score stored vectors on CUDA: {reason}.") from reason


def _uploaded(vectors: HalfArray, device: int) -> DeviceMemory:
    """A copy on the device, read block by block from the mapped file."""
    memory = DeviceMemory(vectors.nbytes, device)
    bytes_per_row = vectors.nbytes // max(1, len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE])
        memory.write(start * bytes_per_row, block)
    return memory
