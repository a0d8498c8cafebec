"""The machine: processor, memory, the CUDA driver, and which CUDA libraries are where."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from ragengine.doctor.findings import Finding, gib, sizes
from ragengine.errors import DeviceError
from ragengine.runtime.cuda_driver import read_driver
from ragengine.runtime.devices import installed
from ragengine.runtime.memory import available_memory
from ragengine.runtime.processor import available_cores, instructions, int8_products_overflow, model_name

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MAPS = Path("/proc/self/maps")
# What speeds up graphs and searches; int8 graphs profit from VNNI.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "sve")
_LIBRARY = re.compile(r"lib(cudart|cublas|cublasLt|cudnn|cufft|curand|nvrtc)\.so\.(\d+)[.\d]*$")
_CUDA_PACKAGES = re.compile(r"(nvidia-cu|libcuvs|libraft|librmm|cuda-)")
_LDCONFIG_SECONDS = 10


def software() -> Iterator[Finding]:
    """ragengine itself, Python and the system."""
    yield Finding("ragengine", installed(["ragengine"]).get("ragengine", "not installed as a package"))
    yield Finding("python", platform.python_version(), f"{platform.python_version()} ({sys.executable})")
    yield Finding("system", platform.platform())


def processor() -> Iterator[Finding]:
    """Cores and instructions."""
    allowed, machine = available_cores(), os.cpu_count()
    yield Finding(
        "cores",
        {"allowed": allowed, "machine": machine},
        f"{allowed} for this process, {machine} in the machine",
    )
    yield Finding("model", model_name())
    known = instructions()
    found = [name for name in _INSTRUCTIONS if name in known]
    yield Finding("instructions", found, ", ".join(found) or "not known")
    if known and int8_products_overflow():
        yield Finding("int8", "exact, slower", "no VNNI: int8 graphs compute exactly, in a slower way")


def memory() -> Iterator[Finding]:
    """What the machine and its container have."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("total", total, gib(total))
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    if limit != "max":
        yield Finding("container limit", int(limit), gib(int(limit)))
    free = available_memory()
    yield Finding("available", free, "not known" if free is None else gib(free))


def cuda() -> Iterator[Finding]:
    """The driver with its devices, NVIDIA's packages, and the libraries that the loader finds."""
    try:
        driver = read_driver()
    except DeviceError as reason:
        yield Finding("driver", None, str(reason))
    else:
        yield Finding("driver", driver.cuda, f"runs CUDA up to {driver.cuda}")
        for device in driver.devices:
            yield Finding(
                f"device {device.number}",
                {
                    "name": device.name,
                    "compute": device.compute,
                    "free": device.free_bytes,
                    "total": device.total_bytes,
                },
                f"{device.name}, compute capability {device.compute}, "
                + sizes(free=device.free_bytes, total=device.total_bytes),
            )
    packages = {d.name: d.version for d in distributions() if _CUDA_PACKAGES.match((d.name or "").lower())}
    listed = ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))
    yield Finding("packages", packages, listed or "none")
    libraries = _libraries()
    text = "; ".join(f"{name}: {', '.join(paths)}" for name, paths in libraries.items())
    yield Finding("libraries", libraries, text or "none")


def loaded_cuda() -> Iterator[Finding]:
    """The CUDA libraries that this process has loaded; two major versions of one are a problem."""
    mapped = _MAPS.read_text("utf-8", "replace").splitlines() if _MAPS.exists() else []
    paths = {line.split(maxsplit=5)[-1] for line in mapped if "/" in line}
    loaded = sorted({Path(path).name for path in paths if _LIBRARY.match(Path(path).name)})
    yield Finding("loaded", loaded, ", ".join(loaded) or "none", problem=two_cudas(loaded))


def two_cudas(libraries: list[str]) -> str:
    """The sentence about libraries that are loaded in two major versions; empty if there are none."""
    majors: dict[str, set[str]] = {}
    for name in libraries:
        found = _LIBRARY.match(name)
        if found:
            majors.setdefault(found[1], set()).add(found[2])
    twice = {name: sorted(numbers) for name, numbers in majors.items() if len(numbers) > 1}
    if not twice:
        return ""
    listed = ", ".join(f"lib{name} {' and '.join(numbers)}" for name, numbers in sorted(twice.items()))
    return (
        f"Two CUDA versions are loaded into one process ({listed}); install onnxruntime and faiss for the "
        "same CUDA (docs/guides/gpu.md)."
    )


def _libraries() -> dict[str, list[str]]:
    """CUDA libraries by name, with the folders that hold them."""
    found: dict[str, set[str]] = {}
    for path in (*_of_the_loader(), *_of_search_paths(), *_of_wheels()):
        if _LIBRARY.match(path.name):
            found.setdefault(path.name, set()).add(str(path.parent))
    return {name: sorted(folders) for name, folders in sorted(found.items())}


def _of_the_loader() -> Iterator[Path]:
    ldconfig = shutil.which("ldconfig") or shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if ldconfig is None:
        return
    try:
        listing = subprocess.run(
            [ldconfig, "-p"], capture_output=True, text=True, timeout=_LDCONFIG_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return
    for line in listing.splitlines():
        if " => " in line:
            yield Path(line.rpartition(" => ")[2])


def _of_search_paths() -> Iterator[Path]:
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if folder and Path(folder).is_dir():
            yield from Path(folder).glob("lib*.so.*")


def _of_wheels() -> Iterator[Path]:
    """Where NVIDIA's wheels put them: nvidia/cu13/lib, nvidia/cublas/lib, ..."""
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path}
    for root in sorted(root for root in roots if root):
        yield from Path(root).glob("nvidia/*/lib/lib*.so.*")
