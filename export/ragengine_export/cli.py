"""`ragengine export`: a checkpoint in, a checked bundle out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from ragengine.cli.common import force_option, may_replace
from ragengine.cli.console import SafeConsole, line
from ragengine.cli.output import echo
from ragengine_export.choices import GIVEN_POOLINGS, PRECISIONS, GivenPooling, Precision

if TYPE_CHECKING:
    from ragengine_export import ExportReport


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
@force_option
def export(
    paths: tuple[str, ...], precision: Precision, context_encoder: str | None, question_encoder: str | None,
    generator: str | None, pooling: GivenPooling | None, check: bool, force: bool,
) -> None:  # fmt: skip
    """Export a Hugging Face RAG checkpoint, a folder or hub id SOURCE, to the folder BUNDLE.

    With --question-encoder and --generator two checkpoints are joined, and BUNDLE stands alone.
    """
    joined = question_encoder is not None or generator is not None
    if len(paths) != (1 if joined else 2):
        expected = "BUNDLE alone (the checkpoints are given as options)" if joined else "SOURCE and BUNDLE"
        raise click.UsageError(f"expected {expected}, got {len(paths)} paths")
    from ragengine_export import export_checkpoint

    report = export_checkpoint(
        None if joined else paths[0],
        Path(paths[-1]),
        precision,
        context_encoder=context_encoder,
        question_encoder=question_encoder,
        generator=generator,
        pooling=pooling,
        check=check,
        force=may_replace(paths[-1], force),
    )
    print_report(SafeConsole(), report)


def print_report(console: SafeConsole, report: "ExportReport") -> None:
    """Print the table of graphs, the sizes, and what the user should know."""
    if report.checks:
        table = Table(box=None, title="graphs against torch, random inputs", title_justify="left")
        table.add_column("graph")
        for name in ("max abs difference", "size", "nodes"):
            table.add_column(name, justify="right")
        for check in report.checks:
            size = f"{check.graph_size / 1e3:.0f} kB"
            table.add_row(line(check.graph), f"{check.max_abs_difference:.1e}", size, str(check.nodes))
        console.print(table)
        for check in report.checks:
            if check.loss is not None:
                agreement, drop = check.loss.token_agreement, check.loss.log_prob_drop
                console.print(f"the most probable token is torch's in {agreement:.1%} of steps,")
                console.print(f"its log-probability lower by {drop:.4f} in the mean")
    total = sum(file.stat().st_size for file in report.path.rglob("*") if file.is_file())
    echo(f"{report.path}: {total / 1e6:.1f} MB")
    for note in report.notes:
        echo(f"note: {note}")
    for warning in report.warnings:
        echo(f"warning: {warning}", err=True)
