"""The machine that the figures were measured on."""

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ragengine.runtime.processor import instructions, model_name

PACKAGES = (
    "ragengine", "onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu-cuvs", "numpy", "tokenizers",
    "torch", "transformers", "ctranslate2",
)  # fmt: skip

INSTRUCTION_SETS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_STAT = Path("/proc/stat")


def machine(threads: int) -> dict[str, Any]:
    """Processor, memory, system, versions; the load average shows whether anything else was running."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "processor": model_name(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in instructions()],
        "memory_bytes": _memory_bytes(),
        "threads": threads,
        "load_average_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


class StealClock:
    """The share of processor time that a hypervisor gave to others since the clock was made."""

    def __init__(self) -> None:
        self._start = _processor_ticks()

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the system does not count it."""
        now = _processor_ticks()
        if self._start is None or now is None or now[1] == self._start[1]:
            return None
        return (now[0] - self._start[0]) / (now[1] - self._start[1])


def _processor_ticks() -> tuple[int, int] | None:
    """Stolen ticks and all ticks of all cores: the first eight numbers of `cpu` in /proc/stat."""
    if not _STAT.exists():
        return None
    ticks = [int(number) for number in _STAT.read_text("utf-8").split("\n", 1)[0].split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
