"""The memory of this process and of this machine, in bytes."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """How much this process may still take: what is left to the machine, or to its container if that is less.

    Returns:
        Bytes; None where neither is known.
    """
    known = (left for left in (_left_to_machine(), _left_to_container()) if left is not None)
    return min(known, default=None)


def resident_bytes() -> int:
    """Memory of this process now (Linux), or the most it has had (elsewhere)."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_free_memory() -> None:
    """Give back to the system what the heap keeps for later (glibc), which :func:`resident_bytes` counts."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _left_to_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, LookupError):
        return None


def _left_to_container() -> int | None:
    """What the limit of the control group leaves, if there is one; its unused file cache counts as free."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max", where there is no limit, is no number
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return limit - used + int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
