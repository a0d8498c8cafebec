"""One step of the optimizer by torch's profiler: how long each part of it takes."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

_ROWS = 40


class StepProfile(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Profile step ``step``, the first is 1, and write `profile-STEP.txt` and `.json` beside the checkpoints.

    The parts of the joint stage are named ``encode questions``, ``retrieve`` and ``generator``, those of the
    encoders ``encode questions`` and ``encode passages``; backward and optimizer have torch's names.  The
    JSON opens in chrome://tracing and Perfetto.
    """

    def __init__(self, step: int, folder: Path) -> None:
        self._step, self._folder = step, folder
        self._profiler: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start before the step."""
        if state.global_step == self._step - 1:
            self._profiler = torch.profiler.profile()
            self._profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after the optimizer's step, and write."""
        if self._profiler is None:
            return
        self._profiler.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        order = "cuda_time_total" if torch.cuda.is_available() else "cpu_time_total"
        table = self._profiler.key_averages().table(sort_by=order, row_limit=_ROWS)
        path = self._folder / f"profile-{self._step}.txt"
        path.write_text(table + "\n", "utf-8")
        self._profiler.export_chrome_trace(str(path.with_suffix(".json")))
        self._profiler = None
