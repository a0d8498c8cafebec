"""The processor: which cores this process may use, and which instructions it has."""

import os
import platform
import re
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Cores that this process may use, which a container or taskset can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_name() -> str:
    """What the processor is called; its architecture where that is all that is known."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """Linux's names of the instruction sets, such as ``avx2``; empty where they are not known."""
    return frozenset(_cpuinfo("flags|Features").split())  # x86, ARM


def is_x86() -> bool:
    """Whether this is a 64-bit x86 processor."""
    return platform.machine().lower() in ("x86_64", "amd64")


@cache
def int8_products_overflow() -> bool:
    """Whether this is an x86 processor without VNNI, whose sums of int8 products saturate at 16 bits.

    True where the instructions are not known, which costs speed and never exactness.
    """
    return is_x86() and not any("vnni" in name for name in instructions())


def _cpuinfo(field: str) -> str:
    """The first value of a field, a regular expression; empty where there is none."""
    text = _CPUINFO.read_text("utf-8", "replace") if _CPUINFO.exists() else ""
    found = re.search(rf"^(?:{field})\s*:[ \t]*(.+)$", text, re.MULTILINE)
    return found[1] if found else ""
