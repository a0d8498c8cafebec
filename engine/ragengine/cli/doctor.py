"""`ragengine doctor`: what is installed and works here, and why something does not."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragengine.cli.common import device_options, folder_options, placed
from ragengine.cli.output import print_json

if TYPE_CHECKING:
    from ragengine.doctor import Diagnosis


@click.command()
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@folder_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@device_options
def doctor(
    bundle: str | None,
    index: str | None,
    bundle_folder: Path | None,
    index_folder: Path | None,
    as_json: bool,
    device: Any,
    search_device: Any,
    threads: int | None,
) -> None:
    """Say what is installed, what works and where graphs and index run; answer with BUNDLE and INDEX.

    The exit code is 0 when questions can be answered on the device, else 1, with the reasons.
    """
    from ragengine.doctor import diagnose

    model, passages, others = placed([bundle, index], bundle_folder, index_folder)
    if others:
        raise click.UsageError(f"Got unexpected extra argument ({others[0]}).")
    diagnosis = diagnose(model, passages, device=device, search_device=search_device, threads=threads)
    if as_json:
        print_json(diagnosis.to_dict(), indent=2)
    else:
        _print(diagnosis)
    if diagnosis.reasons:
        click.get_current_context().exit(1)


def _print(diagnosis: "Diagnosis") -> None:
    from rich.table import Table

    from ragengine.cli.console import SafeConsole, line

    console = SafeConsole()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section in diagnosis.sections:
        table.add_row(line(section.title, "bold"))
        for finding in section.findings:
            style = "red" if finding.fatal else "yellow" if finding.problem else ""
            table.add_row(line(f"  {finding.name}"), line(str(finding), style))
    console.print(table)
    for warning in diagnosis.warnings:
        console.print(line(f"warning: {warning}", "yellow"), soft_wrap=True)
    for reason in diagnosis.reasons:
        console.print(line(f"error: {reason}", "red"), soft_wrap=True)
    if not diagnosis.reasons:
        console.print(f"Questions can be answered with --device {diagnosis.device}.")
