"""The CUDA driver, called directly: its devices, and memory on them, whatever packages are installed."""

import contextlib
import ctypes
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ragengine.errors import DeviceError
from ragengine.runtime.cuda_capture import CUDA_WORK

_LIBRARY = "libcuda.so.1"
# CUdevice_attribute of cuda.h
_SHARED_MEMORY_PER_BLOCK, _COMPUTE_MAJOR, _COMPUTE_MINOR = 8, 75, 76
_NAME_BYTES = 128


@dataclass(frozen=True)
class CudaDevice:
    """One GPU.

    number         its place among the devices that this process sees
    name           such as ``NVIDIA H100``
    compute        its compute capability, such as 9.0
    total_bytes    its memory
    free_bytes     what is free of it
    shared_bytes   shared memory of a block of threads, without opting in to more
    """

    number: int
    name: str
    compute: str
    total_bytes: int
    free_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class CudaDriver:
    """The driver: the newest CUDA that it runs, such as 13.0, and its devices."""

    cuda: str
    devices: tuple[CudaDevice, ...]


def read_driver() -> CudaDriver:
    """Read the driver's devices and how much of their memory is free now.

    This retains and releases a context on each device, without which the driver does not report free memory.

    Raises:
        DeviceError: there is no driver, it does not start, or it has no device.
    """
    library = _started()
    version = _number(library, "cuDriverGetVersion")
    count = _number(library, "cuDeviceGetCount")
    if not count:
        raise DeviceError("The CUDA driver has no device; check nvidia-smi and CUDA_VISIBLE_DEVICES.")
    devices = tuple(_device(library, number) for number in range(count))
    return CudaDriver(f"{version // 1000}.{version % 1000 // 10}", devices)


class DeviceMemory:
    """Memory on a device, at :attr:`pointer`, freed with this object.

    It takes exactly the bytes asked for: onnxruntime's own allocator takes the next power of two.
    """

    def __init__(self, size: int, device: int) -> None:
        """Take ``size`` bytes of device number ``device``; raises :class:`DeviceError` if less is left."""
        self._library = _started()
        self._device = _device_handle(self._library, device)
        self._pointer = ctypes.c_uint64()
        self._context = ctypes.c_void_p()
        _call(self._library, "cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        try:
            self._in_context("cuMemAlloc_v2", ctypes.byref(self._pointer), ctypes.c_size_t(size))
        except BaseException:
            _call(self._library, "cuDevicePrimaryCtxRelease_v2", self._device)
            raise
        release = weakref.finalize(
            self, _release, os.getpid(), self._library, self._context, self._device, self._pointer
        )
        release.atexit = False  # the end of the process frees it anyway

    @property
    def pointer(self) -> int:
        """The device address."""
        return self._pointer.value

    def write(self, offset: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to ``offset`` bytes from the start; the copy is complete on return."""
        address = ctypes.c_uint64(self.pointer + offset)
        source = ctypes.c_void_p(array.ctypes.data)
        self._in_context("cuMemcpyHtoD_v2", address, source, ctypes.c_size_t(array.nbytes))
        self._in_context(
            "cuCtxSynchronize"
        )  # streams of others, such as onnxruntime's, do not wait for the copy

    def _in_context(self, function: str, *arguments: Any) -> None:
        with _current(self._library, self._context):
            _call(self._library, function, *arguments)


def _release(
    process: int, library: Any, context: ctypes.c_void_p, device: ctypes.c_int, pointer: ctypes.c_uint64
) -> None:
    """Free device memory, except in a fork, which does not own it."""
    if os.getpid() == process:
        with CUDA_WORK.shared(), _current(library, context):
            _call(library, "cuMemFree_v2", pointer)
        _call(library, "cuDevicePrimaryCtxRelease_v2", device)


def _device(library: Any, number: int) -> CudaDevice:
    device = _device_handle(library, number)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(library, "cuDeviceGetName", name, _NAME_BYTES, device)

    def attribute(which: int) -> int:
        return _number(library, "cuDeviceGetAttribute", which, device)

    free, total = _memory(library, device)
    return CudaDevice(
        number=number,
        name=name.value.decode("utf-8", "replace"),
        compute=f"{attribute(_COMPUTE_MAJOR)}.{attribute(_COMPUTE_MINOR)}",
        total_bytes=total,
        free_bytes=free,
        shared_bytes=attribute(_SHARED_MEMORY_PER_BLOCK),
    )


def _memory(library: Any, device: ctypes.c_int) -> tuple[int, int]:
    """Free and total bytes of a device."""
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    _call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        with _current(library, context):
            _call(library, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    finally:
        _call(library, "cuDevicePrimaryCtxRelease_v2", device)
    return free.value, total.value


def _started() -> Any:
    """Load and initialise the driver's library."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as reason:
        raise DeviceError(
            f"The CUDA driver cannot be loaded ({reason}); install NVIDIA's driver, and in a container "
            "start it with the GPU."
        ) from reason
    _call(library, "cuInit", 0)
    return library


def _device_handle(library: Any, number: int) -> ctypes.c_int:
    return ctypes.c_int(_number(library, "cuDeviceGet", number))


@contextlib.contextmanager
def _current(library: Any, context: ctypes.c_void_p) -> Iterator[None]:
    """Make ``context`` the current one of this thread within the block."""
    _call(library, "cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        _call(library, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def _number(library: Any, function: str, *arguments: Any) -> int:
    """The int that a function writes to its first argument."""
    value = ctypes.c_int()
    _call(library, function, ctypes.byref(value), *arguments)
    return value.value


def _call(library: Any, function: str, *arguments: Any) -> None:
    status = getattr(library, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        library.cuGetErrorName(status, ctypes.byref(text))
        name = text.value.decode() if text.value else "unknown"
        raise DeviceError(
            f"The CUDA driver does not work: {function} failed with {status} ({name}); check nvidia-smi."
        )
