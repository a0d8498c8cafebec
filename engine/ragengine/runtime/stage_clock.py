"""How long the stages of a call took."""

import time
from collections.abc import Mapping


class StageClock:
    """Milliseconds of each stage, from the end of the stage before it; a stage that comes again adds up."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        """Start now; ``before`` are stages that took place earlier."""
        self.timings = dict(before or {})
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """The stage ``name`` ends now."""
        now = time.perf_counter()
        self.timings[name] = self.timings.get(name, 0.0) + (now - self._last) * 1000
        self._last = now
