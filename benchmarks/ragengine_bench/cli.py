"""`ragengine bench`: what this machine would gain, measured side by side in one run."""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ragengine.cli.console import SafeConsole, line
from ragengine.cli.output import echo
from ragengine.installation import check_packages
from ragengine.runtime.processor import available_cores
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.compare.html_page import write_page
from ragengine_bench.compare.options import AXES, KINDS, PRECISIONS, Plan
from ragengine_bench.compare.terminal import print_report
from ragengine_bench.harness.interrupts import INTERRUPTED, sigterm_as_ctrl_c
from ragengine_bench.harness.machine import StealClock, machine
from ragengine_bench.harness.report import FILE, Report

# Imported when something is measured, which takes seconds; that one is missing is said before.
_NEEDED = ("torch", "transformers", "onnxscript", "onnx_ir", "matplotlib")
_SOURCE_TOKENS = 160
_SUBCOMMANDS = {
    "index": "ragengine_bench.index.command:index_bench",
    "ray-rag": "ragengine_bench.ray_rag.command:ray_rag_bench",
    "scale": "ragengine_bench.index.scale.command:scale_bench",
}


class _Bench(click.Group):
    """`ragengine bench` measures; its subcommands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, place in _SUBCOMMANDS.items() if importlib.util.find_spec(place.split(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = _SUBCOMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Bench, invoke_without_command=True)
@click.option("--shape", type=click.Choice(list(SHAPES)), help="Measure random weights of this shape.")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A bundle to measure on whole questions, with --index; may be repeated.",
)
@click.option("--index", type=click.Path(path_type=Path), help="The index of the bundles.")
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    help="Questions, a JSONL file [default: made of the index's titles].",
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most questions to ask.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The checkpoint of the bundle, which the peers load.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="Precision of the graphs; may be repeated [default: fp32].",
)
@click.option(
    "--marginalize",
    "kinds",
    multiple=True,
    type=click.Choice(list(KINDS)),
    help="RAG-Token or RAG-Sequence; may be repeated [default: token].",
)
@click.option(
    "--documents", type=click.IntRange(1), default=5, show_default=True, help="Documents a question."
)
@click.option(
    "--source-tokens",
    type=click.IntRange(2),
    help=f"Tokens of a document [default: {_SOURCE_TOKENS}, or as many as the shape reads].",
)
@click.option(
    "--num-beams", type=click.IntRange(1), default=4, show_default=True, help="Beams; 1 is greedy search."
)
@click.option(
    "--target-tokens", type=click.IntRange(2), default=20, show_default=True, help="Tokens of every answer."
)
@click.option(
    "--batch",
    type=click.IntRange(2),
    is_flag=False,
    flag_value=8,
    help="Also measure this many questions at once [8].",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    type=click.Choice(AXES),
    help="Vary one setting and keep the others; may be repeated.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="Measure only peers whose name holds this; none for no peers; may be repeated.",
)
@click.option("--optimum-python", help="Python of an environment that has optimum-onnx.")
@click.option("--openvino-python", help="Python of an environment that has OpenVINO and optimum-intel.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Samples of each measurement."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of every engine [default: all cores].")
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=900,
    show_default=True,
    help="Most seconds that one call of a peer may take.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="bench-report",
    show_default=True,
    help="Folder for report.json, index.html and plots.",
)
@click.pass_context
def bench(ctx: click.Context, /, output: Path, threads: int | None, **options: Any) -> None:
    """Measure ragengine beside other engines on this machine, and how near it is to what the machine can do.

    With --shape: random weights, random documents, a forced number of tokens.  With --bundle and --index:
    whole questions, from text to text.  Without either: --shape worldfacts.  Everything is in --output:
    report.json (every sample), index.html, and plots; an interrupted run keeps what it has.
    """
    if ctx.invoked_subcommand is not None:
        return
    plan = _plan(options, threads or available_cores())
    check_packages("ragengine bench needs", _NEEDED, "bench")
    from ragengine_bench.compare.plan import measure

    report, steal = Report(command=_command(ctx), machine=machine(plan.threads)), StealClock()

    def save() -> None:
        report.machine["steal"] = steal.share
        report.write(output)

    with ExitStack() as stack:
        stack.enter_context(sigterm_as_ctrl_c())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragengine-bench-")))
        interrupted = False
        try:
            measure(plan, report, folder, save, _progress(stack))
            report.complete = True
        except KeyboardInterrupt:
            interrupted = True
        _finish(report, output)
    if interrupted:
        echo(f"ragengine bench: interrupted; what was measured is in {output}.", err=True)
        ctx.exit(INTERRUPTED)


def _finish(report: Report, output: Path) -> None:
    """Tables, plots and the page of what was measured."""
    from ragengine_bench.compare.plots import write_plots

    report.write(output)
    plots = write_plots(report, output)
    write_page(report, plots, output)
    print_report(SafeConsole(), report)
    echo(f"every sample: {output / FILE}; to read: {output / 'index.html'}")


def _plan(options: dict[str, Any], threads: int) -> Plan:
    """The options as a plan; says in one sentence what does not go together."""
    if not options["shape"] and not options["bundles"]:
        options["shape"] = "worldfacts"
    if bool(options["bundles"]) != bool(options["index"]):
        raise click.UsageError("--bundle and --index go together; give both for whole questions.")
    for name in ("questions", "checkpoint"):
        if options[name] and not options["bundles"]:
            raise click.UsageError(f"--{name} needs --bundle and --index, the model it belongs to.")
    if options["precisions"] and not options["shape"]:
        raise click.UsageError(
            "--precision belongs to --shape; a --bundle has the precision it was exported in."
        )
    if "precision" in options["sweeps"] and not options["shape"]:
        raise click.UsageError("--sweep precision needs --shape, whose random weights are exported in each.")
    if options["source_tokens"] is None:
        fits = SHAPES[options["shape"]].positions if options["shape"] else _SOURCE_TOKENS
        options["source_tokens"] = min(_SOURCE_TOKENS, fits)
    if options["shape"]:
        most = SHAPES[options["shape"]].positions
        for name in ("source_tokens", "target_tokens"):
            if options[name] > most:
                flag = name.replace("_", "-")
                raise click.UsageError(
                    f"--{flag} is {options[name]}; the shape {options['shape']} has {most} positions, "
                    "so ask for fewer."
                )
    options["precisions"] = options["precisions"] or ("fp32",)
    options["kinds"] = options["kinds"] or ("token",)
    return Plan(threads=threads, **options)


def _command(ctx: click.Context) -> list[str]:
    """The options that were given, as they were typed."""
    typed = []
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            value = ctx.params[name]
            for one in value if isinstance(value, tuple) else (value,):
                typed += [parameter.opts[0], str(one)]
    return typed


def _progress(stack: ExitStack) -> Callable[[str], None]:
    """Says what happens on stderr: one changing line in a terminal, else a line each."""
    console = SafeConsole(stderr=True)
    if not console.is_terminal:
        return lambda text: echo(text, err=True)
    status = stack.enter_context(console.status(""))
    return lambda text: status.update(line(text))
