"""The packages that graphs and searches need: which are installed, whether they load, what they can use."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ragengine.doctor.findings import Finding
from ragengine.runtime.devices import (
    CUDA_PROVIDER,
    FAISS_PACKAGES,
    ONNXRUNTIME_PACKAGES,
    check_cuda,
    installed,
    preload_libraries,
    provider_error,
    why_no_cuda,
)

_IMPORT_SECONDS = 60
# Part of every build, never chosen here, and without kernels of its own.
_OTHER_PROVIDERS = {"AzureExecutionProvider"}
_FAISS_CUDA = {"faiss-gpu": "12", "faiss-gpu-cuvs": "13"}


def onnxruntime(device: str) -> Iterator[Finding]:
    """The distribution, its providers, and whether each can compute."""
    yield from _distributions("onnxruntime", ONNXRUNTIME_PACKAGES)
    ort = _imported("onnxruntime")
    yield Finding("version", ort.__version__)
    cuda = getattr(ort, "cuda_version", "")
    yield Finding("built for CUDA", cuda or None, cuda or "no")
    providers = ort.get_available_providers()
    if CUDA_PROVIDER in providers:
        preload_libraries()
    for provider in providers:
        if provider in _OTHER_PROVIDERS:
            yield Finding(provider, "not used")
            continue
        error = provider_error(provider)
        yield Finding(provider, error is None, f"does not work: {error}" if error else "works")
    reason = why_no_cuda()
    yield Finding("graphs on cuda", reason is None, "yes" if reason is None else f"no: {reason}")
    if device == "cuda":
        check_cuda()


def faiss(device: str) -> Iterator[Finding]:
    """The distribution, how it was built, and the instructions and threads that it uses."""
    packages = installed(FAISS_PACKAGES)
    yield from _distributions("faiss", FAISS_PACKAGES)
    module = _imported("faiss")
    from ragengine.retrieval.gpu.placement import no_gpu_build
    from ragengine.retrieval.gpu.searcher import faiss_build, refusal

    build = faiss_build()
    yield Finding("version", build.version)
    kind = "GPU with cuVS" if build.cuvs else "GPU" if build.gpu else "CPU"
    yield Finding(
        "build",
        {"gpu": build.gpu, "cuvs": build.cuvs, "options": module.get_compile_options().split()},
        f"{kind} ({' '.join(module.get_compile_options().split())})",
    )
    simd = getattr(module, "SIMDConfig", None)
    if simd is not None:
        yield Finding("instructions", simd.get_level_name())
    yield Finding("threads", module.omp_get_max_threads())
    if device == "cuda" and not build.gpu:
        raise refusal(no_gpu_build(build))
    theirs = {major for name, major in _FAISS_CUDA.items() if name in packages}
    ours = str(getattr(sys.modules.get("onnxruntime"), "cuda_version", "") or "").partition(".")[0]
    if theirs and ours:
        yield Finding(
            "same CUDA as onnxruntime",
            theirs == {ours},
            problem=""
            if theirs == {ours}
            else f"onnxruntime is built for CUDA {ours} and faiss ({', '.join(packages)}) for CUDA "
            f"{' and '.join(sorted(theirs))}; two CUDA versions in one process are not supported: install "
            "those of one CUDA (docs/guides/gpu.md).",
        )


def tokenizers() -> Iterator[Finding]:
    """The tokenizers package."""
    yield Finding("version", _imported("tokenizers").__version__)


def _distributions(module: str, names: tuple[str, ...]) -> Iterator[Finding]:
    """The installed distributions of a module; two of them overwrite each other's files."""
    found = installed(names)
    problem = ""
    if len(found) > 1:
        problem = (
            f"{' and '.join(found)} are both installed and overwrite each other's files of {module}; "
            "uninstall both, then install the one you want."
        )
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    yield Finding("packages", found, listed or "none of " + ", ".join(names), problem=problem)


def _imported(name: str) -> Any:
    """Import a module, in a child process first, so that a crash does not end the doctor."""
    child = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        capture_output=True,
        text=True,
        timeout=_IMPORT_SECONDS,
        check=False,
    )
    if child.returncode < 0:
        raise ImportError(f"importing {name} ends Python with {signal.Signals(-child.returncode).name}.")
    return importlib.import_module(name)
