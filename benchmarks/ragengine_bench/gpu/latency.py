"""Steps `latency`, `answer`, `batches`, `greedy`, `compile`: ragengine and transformers by turns on a device.

Processes, samples and tables are those of `ragengine bench` (:class:`ragengine_bench.harness.runs.Runs`);
here the engines are on the GPU, and rooflines follow from the rates that torch reaches there.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ragengine_bench.gpu.models import PRECISIONS, HalfOrFull, Measured, Models
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.rates import measured_rates
from ragengine_bench.gpu.report import Recorder, Table, Target
from ragengine_bench.harness.process import Engine
from ragengine_bench.harness.report import Report, Row, Section, percentile
from ragengine_bench.harness.runs import Runs, Workload
from ragengine_bench.harness.tables import agreement, noise, tables_of
from ragengine_bench.peers import Contender

TIMES_EAGER, STEP_MS, ANSWER_MS = 15, 1.2, 30
"""Targets: speed against transformers fp16 eager, milliseconds of a captured step and of a whole answer."""
OURS, EAGER = "ragengine fp16, CUDA graphs", "transformers fp16 eager"
_OURS = "ragengine_bench.peers.ragengine"
_THEIRS = "ragengine_bench.peers.transformers:TransformersGenerator"
_LIMIT = {"full": 240.0, "toy": 60.0}  # seconds that a call may take
_REPEATS = {"full": 10, "toy": 2}
_QUESTIONS = {"full": 32, "toy": 4}
_COLUMNS = {"": "engine", "memory": "host memory"}  # of the tables of `ragengine bench`
_BATCHES = {"full": (1, 8, 32), "toy": (1, 2)}
TENSORRT_LLM_MS = 280
"""BART-large-CNN, greedy, batch 32, 128 tokens on an H100 in bfloat16, as TensorRT-LLM publishes it."""
_GREEDY = {"full": Workload(32, 1, 512, 1, 129), "toy": Workload(2, 1, 24, 1, 9)}


def latency(plan: GpuPlan, recorder: Recorder) -> None:
    """RAG-Token from documents that are tokens: ours in both precisions, graphs on and off, and theirs."""
    models = Models(plan)
    contenders = [
        theirs(models, EAGER, "fp16", "token"),
        theirs(models, "transformers fp32 eager", "fp32", "token"),
        ours(models, OURS, "fp16"),
        ours(models, "ragengine fp16, no graphs", "fp16", cuda_graphs=False),
        ours(models, "ragengine fp32, CUDA graphs", "fp32"),
    ]
    section = take_turns(models, recorder, "RAG-Token", models.workload, contenders)
    recorder.compare(
        Target.at_least(f"times {EAGER}", TIMES_EAGER, ratio(section, EAGER, OURS)),
        Target.below("a captured step, median", STEP_MS, step_ms(section, OURS)),
        counts=plan.counts,
    )


def compiled(plan: GpuPlan, recorder: Recorder) -> None:
    """RAG-Token beside torch.compile in fp16; a step of its own, since compiling takes minutes."""
    models = Models(plan)
    contenders = [theirs(models, "torch.compile fp16", "torch.compile fp16", "token")]
    contenders += [ours(models, OURS, "fp16")]
    take_turns(models, recorder, "RAG-Token", models.workload, contenders)


def batches(plan: GpuPlan, recorder: Recorder) -> None:
    """RAG-Token for several questions at once, and RAG-Sequence, thorough and joint."""
    models = Models(plan)
    load = models.workload
    sequence = replace(load, marginalize="sequence")
    pairs: list[tuple[str, Workload, list[Contender]]] = [
        (f"RAG-Token, batch {size}", replace(load, batch=size), [
            theirs(models, EAGER, "fp16", "token"), ours(models, OURS, "fp16")
        ])
        for size in _BATCHES[plan.size]
    ]  # fmt: skip
    pairs.append(
        ("RAG-Sequence, thorough", sequence, [
            theirs(models, EAGER, "fp16", "sequence"), ours(models, OURS, "fp16")
        ])
    )  # fmt: skip
    joint = replace(sequence, search="joint")
    pairs.append(("RAG-Sequence, joint", joint, [ours(models, OURS, "fp16")]))
    points = [(what, varied, contender) for what, varied, group in pairs for contender in group]
    runs, report = _runs(plan, recorder, PRECISIONS[:1])
    with _tables_after(recorder, report, _add_points):
        runs.sweep(f"{models.title}: {load}", "batch", load, points, models.vocabulary)


def greedy(plan: GpuPlan, recorder: Recorder) -> None:
    """An ordinary sequence-to-sequence workload: one document a question, greedy, a batch."""
    models, load = Models(plan), _GREEDY[plan.size]
    contenders = [theirs(models, EAGER, "fp16", "token"), ours(models, OURS, "fp16")]
    section = take_turns(models, recorder, "Greedy", load, contenders)
    published = "the batch, against the time that TensorRT-LLM publishes"
    median = _median_ms(section, OURS)
    recorder.compare(Target.below(published, TENSORRT_LLM_MS, median), counts=plan.counts)


def answer(plan: GpuPlan, recorder: Recorder) -> None:
    """Whole answers, from text to text, and where their time goes."""
    models, load = Models(plan), Models(plan).workload
    index, engines = str(models.index), []
    named: dict[str, HalfOrFull] = {OURS: "fp16", "ragengine fp32, CUDA graphs": "fp32"}
    for name, precision in named.items():
        settings = _settings(models, precision) | {"index": index}
        engines.append(Contender(name, f"{_OURS}:RagengineRag", settings, f"device {plan.device}", ours=True))
    options = load.options | {"n_docs": load.documents}
    runs, report = _runs(plan, recorder, PRECISIONS)
    with _tables_after(recorder, report, _add_tables):
        runs.questions("Whole answers", models.questions[: _QUESTIONS[plan.size]], options, engines)
    section = report.sections[0]
    whole = Target.below("a whole answer, median", ANSWER_MS, _median_ms(section, OURS))
    recorder.compare(whole, counts=plan.counts)
    with Engine(engines[0].target, engines[0].settings, threads=plan.threads, limit=120) as engine:
        recorder.step.notes.append(f"The index is searched on the {engine.call('placement').result}.")


def ours(models: Measured, name: str, precision: HalfOrFull, cuda_graphs: bool = True) -> Contender:
    """ragengine's generator on the plan's device, with the static decoder on a CPU too."""
    settings = _settings(models, precision) | {"cuda_graphs": cuda_graphs}
    shown = f"onnxruntime on {models.plan.device}, static decoder"
    return Contender(name, f"{_OURS}:RagengineGenerator", settings, shown, ours=True)


def theirs(models: Measured, name: str, dtype: str, marginalize: str) -> Contender:
    """transformers on the plan's device, padded to the longest document only."""
    settings = {
        "checkpoint": str(models.source),
        "threads": models.plan.threads,
        "dtype": dtype,
        "marginalize": marginalize,
        "device": models.plan.device,
    }
    shown = f"{dtype} on {models.plan.device}, no padding"
    return Contender(name, _THEIRS, settings, shown, {"pad_to": 0}, needs=("torch", "transformers"))


def take_turns(
    models: Measured, recorder: Recorder, title: str, load: Workload, contenders: Sequence[Contender]
) -> Section:
    """One workload, all contenders; its tables are the step's."""
    runs, report = _runs(models.plan, recorder, PRECISIONS)
    with _tables_after(recorder, report, _add_tables):
        runs.generation(f"{title}: {load}", load, contenders, models.vocabulary)
    return report.sections[0]


def ratio(section: Section, slower: str, faster: str) -> float | None:
    """By how much one contender is faster than another, by their medians; None where one failed."""
    rows = [_find(section, slower), _find(section, faster)]
    medians = [row.median for row in rows if row is not None and row.samples]
    return medians[0] / medians[1] if len(medians) == 2 else None


def step_ms(section: Section, name: str) -> float | None:
    """The median of a contender's decoding steps in milliseconds."""
    row = _find(section, name)
    return 1e3 * percentile(row.step_seconds, 50) if row is not None and row.step_seconds else None


def _settings(models: Measured, precision: HalfOrFull) -> dict[str, Any]:
    bundle = str(models.bundle(precision))
    return {"bundle": bundle, "threads": models.plan.threads, "device": models.plan.device, "static": True}


def _runs(plan: GpuPlan, recorder: Recorder, precisions: Sequence[HalfOrFull]) -> tuple[Runs, Report]:
    """What measures, with the rates of this device; every sample is in the step's data at once."""
    rates = measured_rates(plan, precisions)
    recorder.step.setting |= {"bandwidth": f"{rates.bandwidth / 1e9:,.0f} GB/s"}
    recorder.step.setting |= {f"{p} GEMM": f"{rates.operations[p] / 1e12:.3g} TFLOP/s" for p in precisions}
    report = Report([], {})

    def save() -> None:
        recorder.step.data["sections"] = [dataclasses.asdict(section) for section in report.sections]
        recorder.save()

    return Runs(report, rates, _REPEATS[plan.size], _LIMIT[plan.size], save, plan.say), report


@contextmanager
def _tables_after(
    recorder: Recorder, report: Report, add: Callable[[Recorder, Section], None]
) -> Iterator[None]:
    """What was measured is in the step's tables, also after an interrupt."""
    try:
        yield
    finally:
        for section in report.sections:
            add(recorder, section)


def _add_tables(recorder: Recorder, section: Section) -> None:
    for title, columns, rows in tables_of(section):
        named = [_COLUMNS.get(name, name) for name in columns]
        recorder.step.tables.append(Table(title, named, rows))
    recorder.step.notes += [line for line in (agreement(section), noise(section)) if line]
    recorder.step.notes += [f"{row.name} failed: {row.failure}" for row in section.rows if row.failure]


def _add_points(recorder: Recorder, section: Section) -> None:
    """A row an engine at a point; the ratio is against transformers there."""
    table = Table(section.title, ["engine", "what", "median", "p90", "questions/s", "ours is faster by"])
    for row in section.rows:
        if not row.samples:
            table.add(row.name, row.point, "", "", "", "")
            recorder.step.notes.append(f"{row.name}, {row.point}: {row.failure or 'not measured'}")
            continue
        other = _find(section, EAGER, row.point)
        ratio = f"{other.median / row.median:.1f} x" if row.ours and other and other.samples else ""
        times = (f"{1e3 * percentile(row.seconds, p):.2f} ms" for p in (50, 90))
        table.add(row.name, row.point, *times, f"{row.questions_per_second:.2f}", ratio)
    recorder.step.tables.append(table)


def _find(section: Section, name: str, point: Any = None) -> Row | None:
    return next((row for row in section.rows if row.name == name and row.point == point), None)


def _median_ms(section: Section, name: str) -> float | None:
    row = _find(section, name)
    return 1e3 * row.median if row is not None and row.samples else None
