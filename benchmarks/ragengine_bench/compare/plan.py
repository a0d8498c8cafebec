"""From the options of `ragengine bench` to runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.evaluation import read_questions
from ragengine.retrieval.index import PassageIndex
from ragengine_bench import peers
from ragengine_bench.compare.models import BundleModel, RandomModel, Say
from ragengine_bench.compare.options import KINDS, Plan
from ragengine_bench.harness.process import Engine
from ragengine_bench.harness.report import Report
from ragengine_bench.harness.runs import Runs, Workload
from ragengine_bench.peers import Contender
from ragengine_bench.roofline.linear_graph import write_linear
from ragengine_bench.roofline.roofline import Rates
from ragengine_export.choices import PRECISIONS, Precision

_POINTS: dict[str, tuple[int, ...]] = {
    "beams": (1, 2, 4, 8),
    "documents": (1, 2, 5, 10, 20),
    "source": (40, 80, 160, 300),
    "target": (5, 10, 20, 40),
    "batch": (1, 2, 4, 8),
}


def measure(plan: Plan, report: Report, folder: Path, save: Callable[[], None], say: Say) -> None:
    """Measure what ``plan`` says into ``report``; ``folder`` is for random models."""
    shape = RandomModel(plan.shape, folder, plan.threads, say) if plan.shape else None
    trained = BundleModel(plan.bundles, plan.index, plan.threads) if plan.bundles and plan.index else None
    precisions = _precisions(plan, trained)
    if trained is not None:
        _questions_of(plan, trained)  # a file that cannot be read is reported before anything is measured
    rates = _measured_rates(report, precisions, plan.threads, folder, say)
    runs = Runs(report, rates, plan.repeats, plan.patience, save, say)
    save()
    if shape is not None:
        _generation(plan, runs, shape)
    if trained is not None:
        _questions(plan, runs, trained)
    for axis in plan.sweeps:
        model = shape or trained
        assert model is not None
        _sweep(axis, plan, runs, model)


def _precisions(plan: Plan, trained: BundleModel | None) -> list[Precision]:
    """Every precision that a GEMM rate is needed for."""
    found = {*(plan.precisions if plan.shape else ()), *(trained.precisions() if trained else ())}
    return [name for name in PRECISIONS if name in found or "precision" in plan.sweeps]


def _measured_rates(
    report: Report, precisions: Sequence[Precision], threads: int, folder: Path, say: Say
) -> Rates:
    """What this machine does at best (:mod:`ragengine_bench.roofline.machine_rates`)."""
    graphs = {name: write_linear(folder / f"linear-{name}", name) for name in precisions}
    say("measuring GEMM rates and bandwidth")
    target, settings = "ragengine_bench.roofline.machine_rates:MachineRates", {"threads": threads}
    with Engine(target, settings, threads=threads, limit=600) as engine:
        operations: dict[str, float] = {
            name: engine.call("gemm", graph=str(graph)).result for name, graph in graphs.items()
        }
        bandwidth = engine.call("bandwidth").result
    report.rates = {f"{name} GEMM, operations/s": rate for name, rate in operations.items()}
    report.rates |= {f"{name}, bytes/s": rate for name, rate in bandwidth.items()}
    return Rates(operations, max(bandwidth.values()))


def _generation(plan: Plan, runs: Runs, model: RandomModel) -> None:
    ours = model.generators(plan.precisions)
    for kind in plan.kinds:
        load = replace(plan.workload, marginalize=kind)
        others = plan.chosen(model.peers(kind, plan.pythons))
        runs.generation(f"{KINDS[kind]}, {model.title}: {load}", load, [*others, *ours], model.vocabulary)
    if plan.batch:
        load = replace(plan.workload, batch=plan.batch)
        runs.batch(f"{model.title}: {load}", load, ours, model.vocabulary)


def _questions(plan: Plan, runs: Runs, model: BundleModel) -> None:
    questions, ours = _questions_of(plan, model), model.engines()
    for kind in plan.kinds:
        options = {"marginalize": kind}
        others: list[Contender] = []
        if plan.checkpoint is not None and kind == "token":
            longest = Bundle.open(model.paths[0], verify="size").manifest.rag.max_combined_length
            given = peers.question_peers(plan.checkpoint, model.index, plan.threads, longest)
            others = plan.chosen(given)
        title = f"Whole questions, {model.title}, {KINDS[kind]}"
        fewer = [row for engine in ours for row in peers.fewer_documents(engine, kind)]
        runs.questions(title, questions, options, [*others, *ours, *fewer])
    if plan.batch:
        many = (questions * plan.batch)[: plan.batch]
        runs.question_batch(f"Whole questions, {model.title}: {plan.batch} together", many, {}, ours)


def _questions_of(plan: Plan, model: BundleModel) -> list[str]:
    """The questions of the file, or questions made from titles of the index, evenly over it."""
    if plan.questions is not None:
        found = [question.question for question in read_questions(plan.questions)[: plan.limit]]
    else:
        with PassageIndex.open(model.index, verify="size") as index:
            count = min(plan.limit, index.count)
            rows = [index.count * number // count for number in range(count)]
            found = [f"What is {passage.title}?" for passage in index.passages(rows)]
    if not found:
        raise InputError(
            f"{plan.questions or model.index} holds no question to ask; give one with --questions."
        )
    return found


def _sweep(axis: str, plan: Plan, runs: Runs, model: RandomModel | BundleModel) -> None:
    points: list[tuple[int | str, Workload, Contender]]
    load = plan.workload
    if axis == "precision":
        points = [(c.name.split()[-1], load, c) for c in model.generators(PRECISIONS)]
        points = [(p, w, replace(c, name="ragengine")) for p, w, c in points]
    elif axis == "threads":
        counts = sorted({1, *(2**n for n in range(1, 8) if 2**n < plan.threads), plan.threads})
        points = [(n, load, c) for n in counts for c in model.generators(plan.precisions, n)]
    else:
        values = [v for v in _POINTS[axis] if axis not in ("source", "target") or v <= model.positions]
        rows = model.generators(plan.precisions)
        points = [(v, _varied(load, axis, v), c) for v in values for c in rows]
    runs.sweep(f"{model.title}: {load}, {axis} varied", axis, load, points, model.vocabulary)


def _varied(load: Workload, axis: str, value: int) -> Workload:
    changes: dict[str, Any] = {axis: value}
    return replace(load, **changes)
