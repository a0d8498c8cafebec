"""`python -m ragengine_bench.gpu STEP`: the measurements on a GPU, one step a process (benchmarks/gpu.sh).

With ``--device cpu --size toy`` every step runs anywhere, through the code that a GPU runs: the static
decoder, buckets, bound buffers.  Such a run only shows that every step works; its figures mean nothing.
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from ragengine.cli.output import echo
from ragengine.errors import DeviceError, RagEngineError
from ragengine.runtime.cuda_driver import read_driver
from ragengine.runtime.devices import ResolvedDevice, resolve_device
from ragengine.runtime.processor import available_cores
from ragengine_bench.gpu.plan import GpuPlan, Size
from ragengine_bench.gpu.report import Recorder, Step, step_markdown
from ragengine_bench.harness.interrupts import INTERRUPTED, sigterm_as_ctrl_c
from ragengine_bench.harness.machine import machine
from ragengine_bench.harness.tables import memory as shown


class _Program(NamedTuple):
    """A step: what it measures, and the function MODULE:NAME, which is imported when it is run."""

    title: str
    target: str


STEPS = {
    "models": _Program("models and an index of random weights", "ragengine_bench.gpu.models:write_models"),
    "parity-small": _Program(
        "random small checkpoints against Hugging Face in fp32", "ragengine_bench.gpu.parity:small"
    ),
    "latency": _Program(
        "RAG-Token beside transformers on the same device", "ragengine_bench.gpu.latency:latency"
    ),
    "answer": _Program("a whole answer, from text to text, by stage", "ragengine_bench.gpu.latency:answer"),
    "decode": _Program(
        "a decoding step against weight bytes / bandwidth", "ragengine_bench.gpu.decode:decode"
    ),
    "parity-large": _Program(
        "BART-large shape against Hugging Face in fp32", "ragengine_bench.gpu.parity:large"
    ),
    "families": _Program(
        "T5 and mBART: parity, and RAG-Token beside transformers", "ragengine_bench.gpu.families:families"
    ),
    "search": _Program(
        "IVF-PQ on the GPU and on the CPU, a million vectors", "ragengine_bench.gpu.search:search"
    ),
    "memory": _Program("memory of each bucket, and after close", "ragengine_bench.gpu.load:memory"),
    "load": _Program("answers under several threads", "ragengine_bench.gpu.load:load"),
    "batches": _Program(
        "RAG-Sequence, and batches of 8 and 32, beside transformers", "ragengine_bench.gpu.latency:batches"
    ),
    "greedy": _Program(
        "32 questions of one document, greedy, 128 tokens, beside transformers",
        "ragengine_bench.gpu.latency:greedy",
    ),
    "compile": _Program(
        "RAG-Token beside torch.compile, which compiles for minutes", "ragengine_bench.gpu.latency:compiled"
    ),
    "search-large": _Program(
        "IVF-PQ on the GPU and on the CPU, ten million vectors", "ragengine_bench.gpu.search:search_large"
    ),
}
"""Every step, most important first: `benchmarks/gpu.sh` runs them until its time is over."""


@click.command(epilog="\b\n" + "\n".join(f"{name:13} {step.title}" for name, step in STEPS.items()))
@click.argument("name", metavar="STEP", type=click.Choice(list(STEPS)))
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--size", type=click.Choice(["full", "toy"]), default="full", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of what runs on the CPU.  [default: all cores]")
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/gpu"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), help="Models, vectors.  [default: OUTPUT/work]")
def main(
    name: str, device: ResolvedDevice, size: Size, threads: int | None, output: Path, work: Path | None
) -> None:
    """Run one STEP, print its tables, and put them into gpu.json and gpu.md of --output."""
    threads, work = threads or available_cores(), work or output / "work"
    work.mkdir(parents=True, exist_ok=True)
    plan = GpuPlan(device, size, work, threads, partial(echo, err=True))
    step = Step(name, STEPS[name].title, {"device": device, "size": size, "threads": threads})
    recorder = Recorder(output, machine(threads) | {"gpus": _gpus()}, step)
    module, _, function = STEPS[name].target.partition(":")
    code = 0
    try:
        with sigterm_as_ctrl_c():
            resolve_device(device)  # fails at once, before minutes are spent
            getattr(importlib.import_module(module), function)(plan, recorder)
        recorder.end()
    except KeyboardInterrupt:
        recorder.end("interrupted or out of time; what was measured is above")
        code = INTERRUPTED
    except Exception as reason:  # whatever a library raises is the result of this step; the next one runs
        recorder.end(_sentence(reason))
        code = 1
        if not isinstance(reason, RagEngineError):
            import traceback

            traceback.print_exc()
    for row in step_markdown(step).splitlines():
        echo(row)
    sys.exit(code)


def _gpus() -> list[str]:
    """Name, memory and CUDA version of each GPU; nothing where there is no driver."""
    try:
        driver = read_driver()
    except DeviceError:
        return []
    return [f"{gpu.name} ({shown(gpu.total_bytes)}, CUDA {driver.cuda})" for gpu in driver.devices]


def _sentence(reason: Exception) -> str:
    if isinstance(reason, RagEngineError):
        return str(reason)
    lines = str(reason).strip().splitlines()
    return f"{type(reason).__name__}: {lines[0][:300]}" if lines else type(reason).__name__


if __name__ == "__main__":
    main()
