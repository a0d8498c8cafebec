"""`ragengine demo`: the embedded default, a small trained RAG model over real facts about places."""

import os
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import click

from ragengine.cli.common import device_options
from ragengine.errors import InputError

QUESTIONS = 5
_EMBEDDED = Path("examples", "worldfacts")
_SOURCE_LABELS = ("source", "repository", "homepage")


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

    from ragengine.cli.console import SafeConsole, line
    from ragengine.cli.explain import print_answer
    from ragengine.engine import RagEngine
    from ragengine.evaluation import read_questions
    from ragengine.evaluation.metrics import exact_match

    folder = folder or embedded_model(Path.cwd(), Path(__file__).resolve(), otherwise="give --folder")
    asked = read_questions(folder / "questions.jsonl")
    console = SafeConsole()
    started = time.perf_counter()
    settings = {"device": device, "search_device": search_device, "threads": threads}
    with RagEngine.load(folder / "bundle", index=folder / "index", **settings) as engine:
        console.print(
            f"loaded in {time.perf_counter() - started:.2f} s on {engine.generator.device}\n", style="dim"
        )
        for question in asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS]:
            answer = engine.generate(question.question)
            print_answer(console, answer, explain=explain)
            if not exact_match(answer.text, question.answers):
                console.print(line(f"  expected: {' or '.join(question.answers)}", "dim"))
            console.print()
    paths = (Path(sys.argv[0]), folder / "bundle", folder / "index")
    command, bundle, index = (os.path.relpath(path) for path in paths)
    console.print("Ask your own:")
    console.print(
        line(f'  {command} ask {bundle} {index} --explain "What is the capital of Iceland?"'), soft_wrap=True
    )


def embedded_model(*starts: Path, otherwise: str) -> Path:
    """The folder of the embedded model in the clone that one of ``starts`` is in.

    Args:
        starts: folders, or files in them, of which each is looked for in a clone.
        otherwise: what the caller takes in its place, for the message.

    Raises:
        InputError: none of them is in a clone; says how to get one.
    """
    for start in starts:
        for folder in (start, *start.parents):
            if (folder / _EMBEDDED / "bundle").is_dir():
                return folder / _EMBEDDED
    url = _source_url()
    get = f"run git clone {url}" if url else "clone the repository of ragengine"
    raise InputError(
        f"The embedded model is not part of the installed package, and {starts[0]} is not in a clone of the "
        f"repository, which has it in {_EMBEDDED}; {get} and run this in the clone, or {otherwise}."
    )


def _source_url() -> str | None:
    """Where the repository is, by the project URLs of the installed package."""
    try:
        urls = metadata("ragengine").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a source tree
        return None
    by_label = {
        label.strip().lower(): url.strip() for label, _, url in (entry.partition(",") for entry in urls)
    }
    return next((by_label[label] for label in _SOURCE_LABELS if label in by_label), None)
