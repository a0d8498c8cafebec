"""Memory that no file stands behind, of this process and of work in a child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys, threading, time
from pathlib import Path
{prepare}

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024

peak, stop, before = 0, threading.Event(), anonymous()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
{work}
stop.set()
watcher.join()
print(peak - before)
"""


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def peak_bytes(prepare: str, work: str, *arguments: object) -> int:
    """What the statements ``work`` take at most in a child, beyond what it has after ``prepare``.

    Both find ``arguments`` in ``sys.argv[1:]``.
    """
    program = _PROGRAM.format(prepare=prepare, work=work)
    child = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(child.stdout)
