"""`ragengine eval`: how good the answers and the retrieval are on questions with known answers."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ragengine.cli.common import device_options, generation_options, given, verify_option


@click.command("eval")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("questions", type=click.Path(path_type=Path), metavar="QUESTIONS.jsonl")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@generation_options
@device_options
@verify_option
def evaluate(
    bundle: Path,
    index: Path,
    questions: Path,
    as_json: bool,
    device: Any,
    search_device: Any,
    threads: int | None,
    verify: Any,
    **settings: Any,
) -> None:
    """Measure the model in BUNDLE with INDEX on QUESTIONS.jsonl."""
    from ragengine import evaluation
    from ragengine.engine import RagEngine

    asked = evaluation.read_questions(questions)
    engine = RagEngine.load(
        bundle, index=index, device=device, search_device=search_device, threads=threads, verify=verify
    )
    with engine, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("answering", total=len(asked))
        result = evaluation.evaluate(
            engine, asked, progress=lambda n: bar.advance(task, n), **given(**settings)
        )
    if as_json:
        click.echo(json.dumps({**result, "n": int(result["n"])}))
        return
    table = Table(box=None)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:.0f}" if name == "n" else f"{value * 100:.1f} %")
    Console().print(table)
