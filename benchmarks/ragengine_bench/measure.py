"""Timing: warm-up, interleaved repeats, every sample kept."""

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Samples:
    """Seconds of each repeat of one measurement."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def p90(self) -> float:
        """The 90th percentile (the largest sample where there are fewer than two)."""
        if len(self.seconds) < 2:
            return self.seconds[0]
        return quantiles(self.seconds, n=10, method="inclusive")[-1]


def side_by_side(
    runs: Mapping[str, Callable[[], object]], repeats: int, progress: Callable[[str], None]
) -> list[Samples]:
    """Time several ways of doing the same thing, taking turns, so that a noisy minute hits all alike.

    Every way runs once before it is timed.
    """
    for name, run in runs.items():
        progress(f"warm-up: {name}")
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            progress(f"{repeat + 1}/{repeats}: {name}")
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return [Samples(name, tuple(values)) for name, values in seconds.items()]


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    packages = ("ragengine", "onnxruntime", "faiss-cpu", "torch", "transformers")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    if named:
        return named[0]
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
