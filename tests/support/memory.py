"""Memory that no file stands behind, of work in a child."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys, threading, time
from ragengine_bench.index.scale.watch import anonymous_bytes
{prepare}

peak, stop, before = 0, threading.Event(), anonymous_bytes()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, anonymous_bytes())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
{work}
stop.set()
watcher.join()
print(peak - before)
"""


def peak_bytes(prepare: str, work: str, *arguments: object) -> int:
    """What the statements ``work`` take at most in a child, beyond what it has after ``prepare``.

    Both find ``arguments`` in ``sys.argv[1:]``.
    """
    program = _PROGRAM.format(prepare=prepare, work=work)
    child = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(child.stdout)
