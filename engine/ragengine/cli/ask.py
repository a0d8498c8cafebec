"""`ragengine ask`: questions in, answers with their documents out."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ragengine.cli.common import device_options, generation_options, given


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a question, on one line.")
@click.option(
    "--explain", is_flag=True, help="Show the answer's tokens over the documents, shaded by posterior."
)
@generation_options
@device_options
def ask(
    bundle: Path, index: Path, questions: tuple[str, ...], as_json: bool, explain: bool, device: Any,
    threads: int | None, **settings: Any,
) -> None:  # fmt: skip
    """Answer each QUESTION with the model in BUNDLE from the passages in INDEX."""
    from ragengine.cli.explain import print_answer
    from ragengine.engine import RagEngine

    with RagEngine.load(bundle, index=index, device=device, threads=threads) as engine:
        console = Console(highlight=False)
        for question in questions:
            answer = engine.generate(question, **given(**settings))
            if as_json:
                click.echo(json.dumps(answer.to_dict(), ensure_ascii=False))
            else:
                print_answer(console, answer, explain=explain)
