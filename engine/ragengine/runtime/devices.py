"""Whether onnxruntime can use CUDA here, and if not, why: found out by trying."""

import contextlib
import ctypes
import io
import logging
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

import numpy as np

from ragengine.errors import DeviceError
from ragengine.runtime.cuda_driver import read_driver

log = logging.getLogger("ragengine")

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
ResolvedDevice: TypeAlias = Literal["cpu", "cuda"]

ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
CUDA_PROVIDER = "CUDAExecutionProvider"

# What onnxruntime loads, by CUDA's major version, and cuDNN; the numbers of cuFFT and cuRAND are their own.
_LIBRARIES = ("libcudart.so.{cuda}", "libcublasLt.so.{cuda}", "libcublas.so.{cuda}", "libnvrtc.so.{cuda}")
_CUFFT = {"12": "libcufft.so.11", "13": "libcufft.so.12"}
_CURAND, _CUDNN = "libcurand.so.10", "libcudnn.so.9"

ONE_NODE = (
    b'\x08\x08:2\n\x0b\n\x01x\x12\x01y"\x03Abs\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""An ONNX graph of one node, float32 [1]: y = Abs(x)."""


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Those of ``packages`` that are installed, with their versions."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def check_cuda() -> None:
    """Raise :class:`DeviceError` with the reason unless graphs can run on CUDA here."""
    reason = why_no_cuda()
    if reason is not None:
        raise DeviceError(f'device is cuda, but {reason}, or use device="cpu".')


@cache
def why_no_cuda() -> str | None:
    """Why graphs cannot run on CUDA here, as the part of a sentence; None where they can.

    Tried once a process: the provider, the driver, then a graph of one node.
    """
    import onnxruntime as ort

    if CUDA_PROVIDER not in ort.get_available_providers():
        both = installed(ONNXRUNTIME_PACKAGES)
        if len(both) > 1:
            return (
                f"{' and '.join(both)} are both installed and overwrite each other; uninstall both, then "
                'install "ragengine[gpu]"'
            )
        return (
            f"this onnxruntime {ort.__version__} has no {CUDA_PROVIDER}; "
            'install "ragengine[gpu]" in an environment without the cpu extra'
        )
    try:
        read_driver()
    except DeviceError as reason:
        return str(reason).rstrip(".")
    preload_libraries()
    fault = provider_fault(CUDA_PROVIDER)
    if fault is None:
        return None
    absent = [name for name, found in cuda_libraries(ort.cuda_version).items() if not found]
    missing = f"; cannot be loaded: {', '.join(absent)}" if absent else ""
    return f"onnxruntime {ort.__version__} cannot start CUDA: {fault}{missing}"


def preload_libraries() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, which lie where the system's loader does not look."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses, and that may be fine
        ort.preload_dlls()


def provider_fault(provider: str) -> str | None:
    """Why onnxruntime's ``provider`` cannot compute a graph of one node; None where it can."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is returned
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(ONE_NODE, options, providers=[provider])
        if provider not in session.get_providers():
            return "it does not start; the libraries it needs are missing or of another version"
        taken = {part.ep_name for part in session.get_provider_graph_assignment_info()}
        if taken != {provider}:
            return f"it leaves the node to {', '.join(sorted(taken))}"
        (result,) = session.run(None, {"x": np.array([-1], np.float32)})
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        return " ".join(str(reason).split())
    return None if result[0] == 1 else f"it computes |-1| = {result[0]}"


def cuda_libraries(cuda_version: str) -> dict[str, bool]:
    """The libraries that onnxruntime built for ``cuda_version`` (such as 13.0) needs; whether each loads."""
    major = cuda_version.partition(".")[0] or "13"
    names = [name.format(cuda=major) for name in _LIBRARIES]
    names += [_CUFFT.get(major, "libcufft.so"), _CURAND, _CUDNN]
    return {name: _loads(name) for name in names}


def _loads(name: str) -> bool:
    library: Any = None
    with contextlib.suppress(OSError):
        library = ctypes.CDLL(name)
    return library is not None


def resolve_device(device: Device) -> ResolvedDevice:
    """Turn ``auto`` into the device that will be used; refuse ``cuda`` where it cannot be, with the reason.

    ``auto`` takes CUDA where it works, and logs what it chose; ``cuda`` never falls back to the CPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {device!r}; it must be auto, cpu or cuda.")
    if device == "cpu":
        return "cpu"
    if device == "auto":
        return _automatic_device()
    check_cuda()
    return "cuda"


@cache
def _automatic_device() -> ResolvedDevice:
    reason = why_no_cuda()
    if reason is None:
        log.info("device auto is cuda.")
        return "cuda"
    log.info("device auto is cpu: %s.", reason)
    return "cpu"
