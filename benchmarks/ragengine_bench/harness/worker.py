"""One engine in a process of its own: `python -m ragengine_bench.harness.worker MODULE:CLASS`.

So the threads of one engine do not disturb another, memory is counted for each, and an engine may be in
another environment, whose python then runs this file with FILE.py:CLASS.  It uses the standard library alone.

A request is one line of JSON on stdin, the reply one line on stdout:

    {"load": {settings}}                               the class is called with the settings
    {"call": method, "with": {arguments}, "fresh": b}  fresh: memory is counted from this call on
    -> {"seconds", "result", "peak_bytes"}   or   {"error": one sentence}
"""

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve one engine until stdin ends, which it does when the parent does."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no reply
    engine: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                engine, reply = _measured(_load, target=sys.argv[1], settings=request["load"])
            else:
                if request["fresh"]:
                    _forget_peak()
                result, reply = _measured(getattr(engine, request["call"]), **request["with"])
                reply["result"] = result
        except Exception as reason:  # whatever an engine raises becomes a row of the report
            reply = {"error": _sentence(reason)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _measured(do: Callable[..., Any], **arguments: Any) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter()
    result = do(**arguments)
    return result, {"seconds": time.perf_counter() - start, "peak_bytes": _peak_bytes()}


def _load(target: str, settings: dict[str, Any]) -> Any:
    """Import and construct the engine: together its load time."""
    name, _, attribute = target.rpartition(":")
    if not name.endswith(".py"):
        return getattr(importlib.import_module(name), attribute)(**settings)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)(**settings)


def _peak_bytes() -> int:
    """The most memory that was resident since :func:`_forget_peak`, or since the start."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Give what is free back to the system and count memory anew, where the system can (Linux)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # another system
        Path("/proc/self/clear_refs").write_text("5")


def _sentence(reason: Exception) -> str:
    lines = str(reason).strip().splitlines()
    return f"{type(reason).__name__}: {lines[0][:300]}" if lines else type(reason).__name__


if __name__ == "__main__":
    main()
