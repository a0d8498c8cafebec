"""Whether onnxruntime can use CUDA here, found out by trying, and the reason where it cannot."""

import contextlib
import ctypes
import io
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeAlias

import numpy as np

from ragengine.errors import DeviceError
from ragengine.installation import pip_install
from ragengine.messages import log, one_line
from ragengine.runtime.cuda_driver import read_driver
from ragengine.runtime.probe_graph import PROBE_GRAPH

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""What a user may choose."""
ResolvedDevice: TypeAlias = Literal["cpu", "cuda"]
"""Where graphs run."""

ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
CUDA_PROVIDER = "CUDAExecutionProvider"

# What onnxruntime loads, named by CUDA's major version; cuFFT, cuRAND and cuDNN have numbers of their own.
_LIBRARIES = ("libcudart.so.{cuda}", "libcublasLt.so.{cuda}", "libcublas.so.{cuda}", "libnvrtc.so.{cuda}")
_CUFFT = {"12": "libcufft.so.11", "13": "libcufft.so.12"}
_CURAND, _CUDNN = "libcurand.so.10", "libcudnn.so.9"


def resolve_device(device: Device) -> ResolvedDevice:
    """Turn ``auto`` into the device that will be used, and refuse ``cuda`` where it does not work.

    ``auto`` takes CUDA where it works and logs its choice; ``cuda`` never falls back to the CPU.

    Raises:
        DeviceError: ``device`` is none of the three, or is cuda where that does not work.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {device!r}; it must be auto, cpu or cuda.")
    if device == "auto":
        return _automatic_device()
    if device == "cuda":
        check_cuda()
    return device


@cache
def _automatic_device() -> ResolvedDevice:
    reason = why_no_cuda()
    if reason is None:
        log.info("device auto is cuda.")
        return "cuda"
    log.info("device auto is cpu: %s.", reason)
    return "cpu"


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
                f"run {pip_install('gpu')}"
            )
        return (
            f"this onnxruntime {ort.__version__} has no {CUDA_PROVIDER}; "
            f"run {pip_install('gpu')} in an environment without the cpu extra"
        )
    try:
        read_driver()
    except DeviceError as reason:
        return str(reason).rstrip(".")
    preload_libraries()
    error = provider_error(CUDA_PROVIDER)
    if error is None:
        return None
    absent = [name for name, loads in cuda_libraries(ort.cuda_version).items() if not loads]
    missing = f"; cannot be loaded: {', '.join(absent)}" if absent else ""
    return f"onnxruntime {ort.__version__} cannot start CUDA: {error}{missing}"


def provider_error(provider: str) -> str | None:
    """Why onnxruntime's ``provider`` cannot compute a graph of one node; None where it can."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is returned
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(str(PROBE_GRAPH), options, providers=[provider])
        if provider not in session.get_providers():
            return "it does not start; the libraries it needs are missing or of another version"
        used = {part.ep_name for part in session.get_provider_graph_assignment_info()}
        if used != {provider}:
            return f"it leaves the node to {', '.join(sorted(used))}"
        (result,) = session.run(None, {"x": np.array([-1], np.float32)})
    except Exception as reason:  # onnxruntime's exceptions share no base class of their own
        return one_line(reason)
    return None if result[0] == 1 else f"it computes |-1| = {result[0]}"


def preload_libraries() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, whose folders the system's loader does not search."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, needed or not
        ort.preload_dlls()


def cuda_libraries(cuda_version: str) -> dict[str, bool]:
    """The libraries that onnxruntime built for ``cuda_version`` (such as 13.0) needs; whether each loads."""
    major = cuda_version.partition(".")[0] or "13"
    names = [name.format(cuda=major) for name in _LIBRARIES]
    names += [_CUFFT.get(major, "libcufft.so"), _CURAND, _CUDNN]
    return {name: _loads(name) for name in names}


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Those of ``packages`` that are installed, with their versions."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
