"""onnxruntime sessions: the only place that chooses execution providers and thread counts."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.errors import BundleError, DependencyError, DeviceError, GraphOutputError, InputError
from ragengine.installation import pip_install
from ragengine.messages import one_line, short_repr
from ragengine.runtime.cuda_capture import CUDA_WORK
from ragengine.runtime.devices import CUDA_PROVIDER, ResolvedDevice
from ragengine.runtime.lifecycle import leak_in_forks
from ragengine.runtime.processor import available_cores, int8_products_overflow

try:
    import onnxruntime as ort
except ModuleNotFoundError as reason:
    raise DependencyError(
        f"onnxruntime is not installed; run {pip_install('cpu')}, or on a CUDA machine {pip_install('gpu')}."
    ) from reason

InferenceSession: TypeAlias = ort.InferenceSession
OrtValue: TypeAlias = ort.OrtValue

MOST_THREADS = 1024

ort.set_default_logger_severity(3)

# Fusions into operators that are slower on a CPU than those they replace (docs/notes/operators.md).
_SLOWER_ON_A_CPU = ["SkipLayerNormFusion", "BiasGeluFusion"]


def create_session(
    path: Path,
    *,
    device: ResolvedDevice,
    threads: int | None,
    low_memory: bool = False,
    cuda_graphs: bool = False,
) -> InferenceSession:
    """Open one graph.

    Threads spin while a run lasts and stop with it, so an idle engine costs its application nothing.  (Never
    spinning was slower, docs/concepts/paper.md.)

    Args:
        path: the ``.onnx`` file.
        device: where it runs; on ``cuda``, nodes without a CUDA kernel run on the CPU.
        threads: threads within an operator, 1 to 1024; None takes the cores that this process may use.
        low_memory: give memory back after every run instead of keeping it for the next, which is slower for
            large batches (docs/guides/small-machines.md).
        cuda_graphs: let runs on CUDA be captured (:func:`run_options`); a node without a CUDA kernel is then
            refused.

    Raises:
        InputError: ``threads`` is out of range.
        BundleError: onnxruntime cannot open the graph.
        DeviceError: CUDA does not start.
    """
    _check_threads(threads)
    try:
        with device_work(device):
            session = (_CudaSession if device == "cuda" else ort.InferenceSession)(
                str(path),
                _session_options(device, threads, low_memory=low_memory, cuda_graphs=cuda_graphs),
                providers=_providers(device, cuda_graphs=cuda_graphs),
                disabled_optimizers=_SLOWER_ON_A_CPU if device == "cpu" else None,
                enable_fallback=0,  # the fallback prints to stdout and goes on with fewer providers
            )
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        if device == "cuda" and isinstance(reason, RuntimeError):  # an error in a graph is of another class
            raise _cuda_error(path, f": {one_line(reason)}") from reason
        raise BundleError(
            f"{path} cannot be opened by onnxruntime {ort.__version__}: {one_line(reason)}; "
            "export the bundle again."
        ) from reason
    if device == "cuda" and CUDA_PROVIDER not in session.get_providers():
        raise _cuda_error(path)
    leak_in_forks(session)  # its destructor joins threads
    return session


class _CudaSession(ort.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
    """A session that gives its device memory back while nothing is captured."""

    def __del__(self) -> None:
        with CUDA_WORK.shared():
            self.__dict__.clear()


def _session_options(
    device: ResolvedDevice, threads: int | None, *, low_memory: bool, cuda_graphs: bool
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would quote a file raw
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if int8_products_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")  # unsigned weights: exact, slower
    if low_memory:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if device == "cuda" and cuda_graphs:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _providers(device: ResolvedDevice, *, cuda_graphs: bool) -> list[Any]:
    """The execution providers in the order of preference, with their settings."""
    cpu = ["CPUExecutionProvider"]
    if device == "cpu":
        return cpu
    settings = {
        # layer norms add in float32, also where they are fused; since onnxruntime 1.28 they always do
        "enable_skip_layer_norm_strict_mode": "1",
        "use_tf32": "0",  # on by default: float32 products would keep 10 bits of mantissa
        "enable_cuda_graph": str(int(cuda_graphs)),
    }
    # onnxruntime refuses a CPU provider that is listed while the fallback to it is disabled
    return [(CUDA_PROVIDER, settings), *([] if cuda_graphs else cpu)]


def _cuda_error(path: Path, reason: str = "") -> DeviceError:
    return DeviceError(
        f"onnxruntime {ort.__version__} could not start CUDA for {path.name}{reason}; "
        'check the driver, CUDA and cuDNN libraries, or use device="cpu".'
    )


def _check_threads(threads: Any) -> None:
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise InputError(
            f"threads is {short_repr(threads)}; it must be a whole number from 1 to {MOST_THREADS}, or None."
        )


def run_options(graph: int) -> ort.RunOptions:
    """Options of a run on CUDA.

    Args:
        graph: the number under which onnxruntime captures the run, or replays it from the second time on;
            -1 runs without capture.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def device_work(device: ResolvedDevice, *, capture: bool = False) -> contextlib.AbstractContextManager[None]:
    """Work on the device, which waits on CUDA while another thread captures; ``capture`` excludes others.

    On a CPU nothing waits.
    """
    if device == "cpu":
        return contextlib.nullcontext()
    return CUDA_WORK.exclusive() if capture else CUDA_WORK.shared()


def to_device(array: NDArray[Any], device: ResolvedDevice) -> OrtValue:
    """A copy of ``array`` on the device."""
    with device_work(device):
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device)


def run_bound(
    session: InferenceSession, feeds: Mapping[str, OrtValue], outputs: Mapping[str, str]
) -> dict[str, OrtValue]:
    """Run with every input and output bound.

    Args:
        session: the graph.
        feeds: its inputs by name.
        outputs: the device on which each output stays, by name.

    Returns:
        The outputs by name.

    Raises:
        GraphOutputError: onnxruntime fails.
    """
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
    """Run with what ``binding`` holds; raises :class:`GraphOutputError` where onnxruntime fails."""
    with _graph_errors(), device_work(_device_of(session)):
        session.run_with_iobinding(binding, options)


def run_arrays(session: InferenceSession, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
    """One output of a run on the host's arrays; raises :class:`GraphOutputError` where onnxruntime fails."""
    with _graph_errors(), device_work(_device_of(session)):
        result: NDArray[Any] = session.run([output], feeds)[0]
    return result


def _device_of(session: InferenceSession) -> ResolvedDevice:
    return "cuda" if CUDA_PROVIDER in session.get_providers() else "cpu"


@contextlib.contextmanager
def _graph_errors() -> Iterator[None]:
    """Raise onnxruntime's failures as :class:`GraphOutputError`: out of memory, or a forged graph."""
    try:
        yield
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        raise GraphOutputError(
            f"onnxruntime {ort.__version__} could not compute a graph of the bundle: {one_line(reason)}; "
            "give it fewer or shorter inputs if memory ran out, or export the bundle again."
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
    """Bind a part of ``memory`` as an input or output; the memory must outlive the binding.

    Args:
        bind: an IOBinding's ``bind_input`` or ``bind_output``.
        name: of the input or output.
        memory: what holds the part.
        device: where it is.
        shape: of the part.
        dtype: of the part; None takes that of ``memory``, float16 or float32.
        offset: bytes of ``memory`` before the part.
    """
    element = dtype or {"tensor(float16)": np.float16, "tensor(float)": np.float32}[memory.data_type()]
    bind(name, device, 0, element, shape, memory.data_ptr() + offset)
