"""How long the stages of a call took."""

import time


class StageClock:
    """Milliseconds of each stage, from the end of the stage before it."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """The stage ``name`` ends now."""
        now = time.perf_counter()
        self.timings[name] = (now - self._last) * 1000
        self._last = now
