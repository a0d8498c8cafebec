"""The memory of this process and of this machine."""

import resource
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that this process may still take: the machine's, or its container's if that is less."""
    limits = []
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_CGROUP / "memory.current").read_text())
            cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
            limits.append(int(limit) - used + int(cache.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def resident_bytes() -> int:
    """Memory of this process now (Linux), or the most it has had (elsewhere)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
