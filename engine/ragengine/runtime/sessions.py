"""onnxruntime sessions: the only place where execution providers and thread counts are chosen."""

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.errors import BundleError, DependencyError, DeviceError, GraphOutputError, InputError
from ragengine.messages import one_line, short_repr
from ragengine.runtime.devices import ResolvedDevice
from ragengine.runtime.lifecycle import leak_in_forks

try:
    import onnxruntime as ort
except ModuleNotFoundError as reason:
    raise DependencyError(
        'onnxruntime is not installed; run pip install "ragengine[cpu]", '
        'or "ragengine[gpu]" on a CUDA machine.'
    ) from reason

InferenceSession: TypeAlias = ort.InferenceSession
OrtValue: TypeAlias = ort.OrtValue

log = logging.getLogger("ragengine")

MOST_THREADS = 1024

ort.set_default_logger_severity(3)

# Fusions into operators that a CPU runs slower than what they replace (docs/operators.md).
_SLOWER_ON_A_CPU = ["SkipLayerNormFusion", "BiasGeluFusion"]


def create_session(
    path: Path,
    *,
    device: ResolvedDevice,
    threads: int | None,
    low_memory: bool = False,
    cuda_graphs: bool = False,
) -> ort.InferenceSession:
    """Open one graph.

    ``threads`` is the number of intra-op threads; ``None`` takes the cores this process may run on.
    ``low_memory`` gives memory back after every run instead of keeping it for the next, which is slower for
    large batches (docs/edge.md).  ``cuda_graphs`` lets runs on CUDA be captured (:func:`run_options`): every
    node must then have a CUDA kernel, and a graph where one has not is refused.
    Threads spin inside a run and stop with it: between questions an engine embedded in an application costs
    nothing.  (Never spinning was slower, docs/design.md.)
    """
    _check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if int8_products_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")  # unsigned weights: exact, slower
    if low_memory:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        settings = {
            # layer norms add in float32, also where onnxruntime fuses them with what comes before
            "enable_skip_layer_norm_strict_mode": "1",
            "use_tf32": "0",  # on by default: float32 products would keep 10 bits of mantissa
            "enable_cuda_graph": str(int(cuda_graphs)),
        }
        providers.insert(0, ("CUDAExecutionProvider", settings))
        if cuda_graphs:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            providers.pop()  # onnxruntime refuses a CPU provider that is named and not to be fallen back to
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=providers,
            disabled_optimizers=_SLOWER_ON_A_CPU if device == "cpu" else None,
            enable_fallback=0,  # which is to print to stdout and go on with less than what was asked for
        )
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        if device == "cuda" and isinstance(reason, RuntimeError):  # those of graphs are none
            raise DeviceError(
                f"onnxruntime {ort.__version__} could not start CUDA for {path.name}: {one_line(reason)}; "
                'check the driver, CUDA and cuDNN libraries, or use device="cpu".'
            ) from reason
        raise BundleError(
            f"{path} cannot be opened by onnxruntime {ort.__version__}: {one_line(reason)}; "
            "export the bundle again."
        ) from reason
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceError(
            f"onnxruntime {ort.__version__} could not start CUDA for {path.name}; "
            'check the driver, CUDA and cuDNN libraries, or use device="cpu".'
        )
    leak_in_forks(session)  # its destructor joins threads
    return session


def _check_threads(threads: Any) -> None:
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise InputError(
            f"threads is {short_repr(threads)}; it must be a whole number from 1 to {MOST_THREADS}, or None."
        )


def run_options(graph: int) -> ort.RunOptions:
    """Options of a run on CUDA: captured as graph number ``graph``, or replayed if it was; -1 is neither."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def to_device(array: NDArray[Any], device: ResolvedDevice) -> OrtValue:
    """A copy of ``array`` on the device."""
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device)


def run_bound(
    session: InferenceSession, feeds: Mapping[str, OrtValue], outputs: Mapping[str, str]
) -> dict[str, OrtValue]:
    """Run with every input and output bound; ``outputs`` maps names to the device they stay on."""
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, value)
    for name, device in outputs.items():
        binding.bind_output(name, device)
    run_binding(session, binding)
    return dict(zip(outputs, binding.get_outputs(), strict=True))


def run_binding(
    session: InferenceSession, binding: ort.IOBinding, options: ort.RunOptions | None = None
) -> None:
    """Run with what is bound; raises :class:`GraphOutputError` where onnxruntime fails."""
    with _failures_named():
        session.run_with_iobinding(binding, options)


def run_arrays(session: InferenceSession, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
    """One output of a run on arrays of the host; raises :class:`GraphOutputError` where onnxruntime fails."""
    with _failures_named():
        result: NDArray[Any] = session.run([output], feeds)[0]
    return result


@contextlib.contextmanager
def _failures_named() -> Iterator[None]:
    """A graph that opens may still fail on what it is fed, if it was forged, or for want of memory."""
    try:
        yield
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        raise GraphOutputError(
            f"onnxruntime {ort.__version__} could not compute a graph of the bundle: {one_line(reason)}; "
            "ask less at once if memory was short, or export the bundle again."
        ) from reason


def bind_memory(
    bind: Callable[..., None],
    name: str,
    memory: OrtValue,
    device: ResolvedDevice,
    *,
    shape: tuple[int, ...],
    dtype: type[Any] | None = None,
    offset: int = 0,
) -> None:
    """Bind ``shape`` at ``offset`` bytes of ``memory``, which must outlive the binding.

    ``bind`` is an IOBinding's ``bind_input`` or ``bind_output``; ``dtype`` is the memory's where not given.
    """
    element = dtype or {"tensor(float16)": np.float16, "tensor(float)": np.float32}[memory.data_type()]
    bind(name, device, 0, element, shape, memory.data_ptr() + offset)


@cache
def int8_products_overflow() -> bool:
    """Whether this is an x86 processor without VNNI, whose products of int8 weights saturate at 16 bits.

    Where the processor cannot be asked, the answer is yes: that costs speed and never exactness.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or "vnni" not in cpuinfo.read_text("utf-8", "replace")


def available_cores() -> int:
    """Cores this process may run on (a container's or taskset's, not the machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
