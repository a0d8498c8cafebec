"""Step `families`: T5 and mBART through the static decoder, against transformers and beside it.

Parity in fp32 on small random checkpoints, then the latency of one question in fp16 at real shapes.
"""

from dataclasses import dataclass
from pathlib import Path

from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.checkpoints.random_checkpoint import RAG, write_random_checkpoint
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.gpu.latency import EAGER, OURS, ours, ratio, step_ms, take_turns, theirs
from ragengine_bench.gpu.models import HalfOrFull, Models
from ragengine_bench.gpu.parity import compare_checkpoints
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.report import Recorder

_SMALL = {"full": ("t5", "flan-t5", "mbart"), "toy": ("t5", "mbart")}
_SEEDS = {"full": (1001, 1002), "toy": (1001,)}
_SHAPES = {"full": ("t5-base", "mbart-large"), "toy": ("tiny-t5", "tiny-mbart")}


@dataclass(frozen=True)
class ShapeModel:
    """Random weights of a shape in the work folder; every path is made when it is first used."""

    plan: GpuPlan
    name: str

    @property
    def vocabulary(self) -> int:
        return SHAPES[self.name].vocabulary

    @property
    def source(self) -> Path:
        folder = self.plan.work / f"{self.name}-checkpoint"
        if not folder.exists():
            self.plan.say(f"writing a random {self.name} model")
            write_random_checkpoint(SHAPES[self.name], folder)
        return folder / RAG

    def bundle(self, precision: HalfOrFull) -> Path:
        """The checkpoint, exported."""
        return Models(self.plan).exported(self.source, f"{self.name}-{precision}", precision)


def families(plan: GpuPlan, recorder: Recorder) -> None:
    """Parity first, then RAG-Token for one question at each shape."""
    specs = [random_spec(seed, model_type=name) for name in _SMALL[plan.size] for seed in _SEEDS[plan.size]]
    compare_checkpoints(plan, recorder, "Random small T5 and mBART", specs)
    load = Models(plan).workload
    for name in _SHAPES[plan.size]:
        model = ShapeModel(plan, name)
        contenders = [theirs(model, EAGER, "fp16", "token"), ours(model, OURS, "fp16")]
        section = take_turns(model, recorder, f"RAG-Token, {name} shape", load, contenders)
        faster, step = ratio(section, EAGER, OURS), step_ms(section, OURS)
        if faster is not None and step is not None:
            recorder.step.notes.append(
                f"{name}: {faster:.1f} times {EAGER}; a step takes {step:.3f} ms in the median."
            )
        recorder.save()
