"""`ragengine demo`: the embedded default, a small trained RAG model over real facts about places."""

import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ragengine.cli.common import device_options
from ragengine.errors import InputError

QUESTIONS = 5


def _worldfacts() -> Path:
    """examples/worldfacts of the checkout this code or the current folder belongs to."""
    for start in (Path.cwd(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "examples" / "worldfacts" / "bundle").is_dir():
                return folder / "examples" / "worldfacts"
    raise InputError("No examples/worldfacts here or above; run the demo in a clone of the repository.")


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder with bundle/, index/ and questions.jsonl."
)
@click.option(
    "--explain/--no-explain", default=True, show_default=True, help="Show the posteriors of every token."
)
@device_options
def demo(folder: Path | None, explain: bool, device: Any, search_device: Any, threads: int | None) -> None:
    """Answer a few questions about passages that the model has never seen in training."""
    import time

    from ragengine.cli.explain import print_answer
    from ragengine.engine import RagEngine
    from ragengine.evaluation import read_questions

    folder = folder or _worldfacts()
    asked = read_questions(folder / "questions.jsonl")
    console = Console(highlight=False)
    started = time.perf_counter()
    settings = {"device": device, "search_device": search_device, "threads": threads}
    with RagEngine.load(folder / "bundle", index=folder / "index", **settings) as engine:
        console.print(
            f"[dim]loaded in {time.perf_counter() - started:.2f} s on {engine.generator.device}[/dim]\n"
        )
        for question in asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS]:
            print_answer(console, engine.generate(question.question), explain=explain)
            console.print(f"  [dim]right: {' or '.join(question.answers)}[/dim]\n")
    paths = (Path(sys.argv[0]), folder / "bundle", folder / "index")
    command, bundle, index = (os.path.relpath(path) for path in paths)
    console.print("Ask your own:")
    console.print(
        f'  {command} ask {bundle} {index} --explain "What is the capital of Iceland?"', soft_wrap=True
    )
