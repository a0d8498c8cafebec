"""A run of wandb for each stage, where `report_to` names it."""

import importlib
from typing import Any

from transformers import TrainerCallback


class EndWandbRun(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """End the run of wandb that the Trainer has begun for a stage; the next stage then has its own.

    A run that the caller has begun goes on, and all stages are in it.
    """

    def __init__(self) -> None:
        self._wandb: Any = importlib.import_module("wandb")  # not in every environment
        self._is_callers = self._wandb.run is not None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the Trainer's own callback, which may upload the model."""
        if self._wandb.run is not None and not self._is_callers:
            self._wandb.finish()
