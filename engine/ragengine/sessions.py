"""onnxruntime sessions: the only place where execution providers and thread counts are chosen."""

import os
import platform
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from ragengine.errors import BundleError, DependencyError, DeviceError

try:
    import onnxruntime as ort
except ModuleNotFoundError as reason:
    raise DependencyError(
        'onnxruntime is not installed; run pip install "ragengine[cpu]", '
        'or "ragengine[gpu]" on a CUDA machine.'
    ) from reason

InferenceSession: TypeAlias = ort.InferenceSession
OrtValue: TypeAlias = ort.OrtValue
Device: TypeAlias = Literal["auto", "cpu", "cuda"]

ort.set_default_logger_severity(3)

# Fusions into operators that a CPU runs slower than what they replace (docs/operators.md).
_SLOWER_ON_A_CPU = ["SkipLayerNormFusion", "BiasGeluFusion"]


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into the device that will be used; refuse ``cuda`` where it cannot be.

    ``auto`` takes CUDA when this onnxruntime was built with it; ``cuda`` never falls back to the CPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {device!r}; it must be auto, cpu or cuda.")
    available = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cuda" and not available:
        raise DeviceError(
            f"device is cuda, but this onnxruntime {ort.__version__} has no CUDAExecutionProvider; "
            'install "ragengine[gpu]" in an environment without the cpu extra, or use device="cpu".'
        )
    return "cuda" if available and device != "cpu" else "cpu"


def create_session(
    path: Path, *, device: Literal["cpu", "cuda"], threads: int | None, low_memory: bool = False
) -> ort.InferenceSession:
    """Open one graph.

    ``threads`` is the number of intra-op threads; ``None`` takes the cores this process may run on.
    ``low_memory`` gives memory back after every run instead of keeping it for the next, which is slower for
    large batches (docs/edge.md).
    Threads spin inside a run and stop with it: between questions an engine embedded in an application costs
    nothing.  (Never spinning was slower, docs/design.md.)
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if int8_products_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")  # unsigned weights: exact, slower
    if low_memory:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    providers = (
        ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    )
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=providers,
            disabled_optimizers=_SLOWER_ON_A_CPU if device == "cpu" else None,
        )
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        raise BundleError(f"{path} cannot be opened by onnxruntime {ort.__version__}: {reason}.") from reason
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceError(
            f"onnxruntime {ort.__version__} could not start CUDA for {path.name}; "
            'check the driver, CUDA and cuDNN libraries, or use device="cpu".'
        )
    return session


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
