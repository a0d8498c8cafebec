"""Step `decode`: a decoding step against reading its weights once, with graphs and without, by batch."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import numpy as np

from ragengine.generation.decoders.static import StepBuffers
from ragengine.generation.model import GeneratorModel
from ragengine_bench.gpu.latency import STEP_MS
from ragengine_bench.gpu.models import PRECISIONS, HalfOrFull, Models
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.rates import measured_rates
from ragengine_bench.gpu.report import Recorder, Table, Target
from ragengine_bench.harness.report import percentile
from ragengine_bench.harness.runs import Workload
from ragengine_bench.harness.tables import memory
from ragengine_bench.peers.ragengine import StageTimes, load_generator, timed_stages
from ragengine_bench.roofline.roofline import StepSizes, decoding_step
from ragengine_bench.roofline.sizes import sizes_of

STAGES: dict[str, tuple[Any, str]] = {
    "decode": (GeneratorModel, "decode_step"),
    "device": (StepBuffers, "run"),
}
"""A step, and the part of it that sends, computes and takes back; the rest is the host's."""
_REPEATS = {"full": 10, "toy": 2}
_BATCHES = {"full": (1, 8, 32), "toy": (1, 2)}


def decode(plan: GpuPlan, recorder: Recorder) -> None:
    """Every step by itself, after a run that captures."""
    models = Models(plan)
    rates = measured_rates(plan, ())
    table = Table(
        f"A decoding step, {models.workload}; bandwidth {rates.bandwidth / 1e9:,.0f} GB/s",
        ["", "batch", "median", "p90", "on the device", "weights", "weights / bandwidth", "times that",
         "with keys and values"],
    )  # fmt: skip
    recorder.step.tables.append(table)
    medians: dict[str, float] = {}
    for precision, graphs, load in _settings(plan, models):
        name = f"{precision}, {'CUDA graphs' if graphs else 'no graphs'}"
        plan.say(f"decode: {name}, batch {load.batch}")
        record = _measured(plan, models, precision, graphs, load)
        steps = record.seconds["decode"]
        sizes = sizes_of(models.bundle(precision))
        wide = sizes.bytes_per_weight
        weights = decoding_step(sizes.generator, StepSizes(0, 0, 0, 0), wide).bytes
        moved = fmean(decoding_step(sizes.generator, step, wide).bytes for step in record.sizes.steps)
        least = weights / rates.bandwidth
        table.add(
            name, load.batch, *(f"{1e3 * percentile(steps, p):.3f} ms" for p in (50, 90)),
            f"{1e3 * median(record.seconds['device']):.3f} ms", memory(int(weights)), f"{1e3 * least:.3f} ms",
            f"{median(steps) / least:.1f} x", f"{median(steps) / (moved / rates.bandwidth):.1f} x",
        )  # fmt: skip
        recorder.step.data[f"{name}, batch {load.batch}"] = record.seconds
        medians[f"{precision} {graphs} {load.batch}"] = 1e3 * median(steps)
        recorder.save()
    captured = medians.get("fp16 True 1")
    figure = Target.below("a captured step, fp16, one question, median", STEP_MS, captured)
    recorder.compare(figure, counts=plan.counts)


def _settings(plan: GpuPlan, models: Models) -> Iterator[tuple[HalfOrFull, bool, Workload]]:
    """One question in each precision with graphs and without; then batches as they are served."""
    for precision in PRECISIONS:
        for graphs in (True, False):
            yield precision, graphs, models.workload
    for batch in _BATCHES[plan.size][1:]:
        yield "fp16", True, replace(models.workload, batch=batch)


def _measured(
    plan: GpuPlan, models: Models, precision: HalfOrFull, graphs: bool, load: Workload
) -> StageTimes:
    """The steps of several searches on one model, after one that captures."""
    generator = load_generator(
        models.bundle(precision), plan.device, plan.threads, cuda_graphs=graphs, static=True
    )
    with np.load(load.write(plan.work / "decode.npz", models.vocabulary), allow_pickle=False) as given:
        arrays = given["ids"], given["mask"], given["scores"]
    options = generator.default_options.replace(**load.options)
    generator.generate(*arrays, options)
    with timed_stages(STAGES) as record:
        for _ in range(_REPEATS[plan.size]):
            generator.generate(*arrays, options)
    generator.close()
    return record
