"""What every step is given: the device, the size, and where models and vectors are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragengine.runtime.devices import ResolvedDevice

Size = Literal["toy", "full"]


@dataclass(frozen=True)
class GpuPlan:
    """The setting of a run.  ``work`` keeps models and vectors from step to step, ``say`` prints progress."""

    device: ResolvedDevice
    size: Size
    work: Path
    threads: int
    say: Callable[[str], None]

    @property
    def toy(self) -> bool:
        return self.size == "toy"

    @property
    def counts(self) -> bool:
        """Whether speeds are compared with their targets: on a GPU, at full size."""
        return self.device == "cuda" and not self.toy
