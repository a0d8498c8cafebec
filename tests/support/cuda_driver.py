"""A CUDA driver without a GPU: a library that checks that it is called as cuda.h says."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#include <stddef.h>
#include <string.h>
static int retained, pushed;
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = number + 7; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    if (device < 7 || length < 10) return 101;
    strncpy(name, device == 7 ? "Card zero" : "Card one", length);
    return 0;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 8 ? 49152 : which == 75 ? 9 : which == 76 ? device - 7 : -1;
    return device < 7;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    retained = device; *context = &retained;
    return 0;
}
int cuCtxPushCurrent_v2(void *context) { pushed = context == &retained; return !pushed; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (!pushed) return 201;
    *free = ((size_t)5 << 32) + retained; *total = (size_t)9 << 32;
    return 0;
}
int cuCtxPopCurrent_v2(void **context) { pushed = 0; *context = &retained; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device != retained; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 999 ? "CUDA_ERROR_UNKNOWN" : "CUDA_ERROR_OTHER"; return 0;
}
"""


def make_cuda_driver(folder: Path, *, init_status: int = 0, devices: int = 1) -> Path:
    """Compile the driver into ``folder`` and return that, for ``LD_LIBRARY_PATH``; skips without a compiler.

    ``init_status`` is what cuInit answers, 0 for success.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = folder / "driver.c", folder / "libcuda.so.1"
    source.write_text(_SOURCE)
    defined = [f"-DINIT={init_status}", f"-DCOUNT={devices}"]
    subprocess.run([compiler, "-shared", "-fPIC", *defined, "-o", library, source], check=True)
    return folder
