"""A program that answers thousands of mixed requests, reloads and swaps; prints its resources as JSON.

    python -m tests.robustness.soaking BUNDLE INDEX OTHER_INDEX REQUESTS RELOADS SWAPS

prints ``{phase: [before, after]}`` of ``{"resident", "files", "threads"}`` (bytes, open files, threads of the
process).  A phase follows a warm-up of a tenth of its length: libraries keep memory for the largest request.
"""

import contextlib
import gc
import itertools
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ragengine import Document, RagEngine
from ragengine.runtime.memory import resident_bytes
from tests.robustness.mixed import SHORT, jobs, outcome

QUESTIONS = ["where is Lima", "who founded Accra", "what is the capital of Kyoto?"]
ASKERS = 4


def held() -> dict[str, int]:
    """The resources of the process after garbage collection."""
    gc.collect()
    return {
        "resident": resident_bytes(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def phase(deed: Callable[[], Any], times: int) -> list[dict[str, int]]:
    """The resources before and after repeating ``deed``, with a warm-up of a tenth."""
    for _ in range(max(2, times // 10)):
        deed()
    before = held()
    for _ in range(times):
        deed()
    return [before, held()]


class Asker:
    """Requests of every kind, one after the other, including unfinished ones."""

    def __init__(self, engine: RagEngine) -> None:
        mixture = [*jobs(QUESTIONS).values(), self.abandon, self.interrupt, self.forget_stream, self.late]
        self.engine = engine
        self._next = itertools.cycle(mixture)
        self._streams: list[Any] = []

    def ask(self) -> None:
        outcome(next(self._next), self.engine)

    def abandon(self, engine: RagEngine) -> None:
        """A stream in a reference cycle, which only the garbage collector frees."""
        stream = engine.stream(QUESTIONS[0], **SHORT, num_beams=1, marginalize="token")
        next(stream)
        cycle: list[Any] = [stream]
        cycle.append(cycle)

    def late(self, engine: RagEngine) -> None:
        """Stopped by its deadline, at any point."""
        engine.generate(QUESTIONS[0], **SHORT, num_beams=2, deadline=0.001)

    def forget_stream(self, engine: RagEngine) -> None:
        """A stream that stays unfinished until ten others are."""
        self._streams.append(engine.stream(QUESTIONS[1], **SHORT, num_beams=1, marginalize="token"))
        next(self._streams[-1])
        del self._streams[:-10]

    def interrupt(self, engine: RagEngine) -> None:
        """Ctrl-C between two tokens."""

        def interrupted(question: int, tokens: np.ndarray) -> list[int]:
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            engine.generate(QUESTIONS[2], **SHORT, num_beams=2, prefix_allowed_tokens_fn=interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            own = [Document("Lima", "Lima is in Peru.", score=1.0)]
            engine.generate(QUESTIONS[2], **SHORT, documents=own, prefix_allowed_tokens_fn=interrupted)


def main() -> None:
    bundle, index, other, *numbers = sys.argv[1:]
    requests, reloads, swaps = map(int, numbers)

    def load(threads: int = 2) -> RagEngine:
        return RagEngine.load(bundle, index=index, device="cpu", threads=threads, verify="size")

    def reload() -> None:
        with load() as engine:
            engine.generate(QUESTIONS[0], **SHORT)

    def reload_unclosed() -> None:
        load().generate(QUESTIONS[0], **SHORT)

    found = {}
    with load() as engine, ThreadPoolExecutor(ASKERS) as pool:
        askers = [Asker(engine) for _ in range(ASKERS)]

        def ask_at_once() -> None:
            list(pool.map(Asker.ask, askers))

        paths = itertools.cycle([other, index])
        found["requests"] = phase(ask_at_once, requests // ASKERS)
        found["swaps"] = phase(lambda: engine.swap_index(next(paths)), swaps)
    found["reloads"] = phase(reload, reloads)
    found["reloads unclosed"] = phase(reload_unclosed, reloads)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
