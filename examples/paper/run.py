"""A task of the paper: convert its data, run `ragengine eval`, print its figures beside the paper's.

python examples/paper/run.py nq nq-test.qa.csv --bundle rag-token-nq --index wikipedia --model token
"""

import itertools
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
from formats import FORMATS, convert

from ragengine.errors import PassagesError, RagEngineError
from ragengine.storage.atomic import output_file

CONFIG: dict[str, Any] = tomllib.loads((Path(__file__).parent / "tasks.toml").read_text("utf-8"))
_EVAL = "from ragengine.cli.main import main; main()"
_OF_EVAL = {"ignore_unknown_options": True}


@click.command(context_settings=_OF_EVAL)
@click.argument("task", type=click.Choice(list(CONFIG["tasks"])))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--index", type=click.Path(path_type=Path), required=True)
@click.option("--model", type=click.Choice(["token", "sequence"]), required=True, help="Of the decoding.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("paper-results"), show_default=True)
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), help="Of DATA [default: the task's].")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions, to try it out.")
@click.argument("further", nargs=-1, type=click.UNPROCESSED)
def main(
    task: str,
    data: Path,
    bundle: Path,
    index: Path,
    model: str,
    output: Path,
    format_: str | None,
    limit: int | None,
    further: tuple[str, ...],
) -> None:
    """Evaluate BUNDLE on DATA, the file of a TASK; FURTHER options go to `ragengine eval`.

    Writes the questions and the figures to the folder --output.
    """
    settings = CONFIG["tasks"][task]
    first = f"-first-{limit}" if limit else ""  # a trial does not overwrite the figures of all questions
    questions = output / f"{task}{first}.questions.jsonl"
    try:
        write_questions(data, format_ or settings["format"], settings.get("labels"), limit, questions)
    except RagEngineError as reason:
        raise click.ClickException(str(reason)) from reason
    arguments = ["eval", *map(str, (bundle, index, questions)), *eval_options(settings, model), *further]
    click.echo(shlex.join(["ragengine", *arguments]), err=True)
    done = subprocess.run(
        [sys.executable, "-c", _EVAL, *arguments, "--json"], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    with output_file(output / f"{task}-{model}{first}.json", parents=True) as file:
        file.write(done.stdout)
    show(settings, model, json.loads(done.stdout))


def write_questions(
    data: Path, format_: str, labels: dict[str, str] | None, limit: int | None, target: Path
) -> None:
    """Convert ``data`` to a file for `ragengine eval`, all of it or nothing."""
    lines = [json.dumps(line) + "\n" for line in itertools.islice(convert(data, format_, labels), limit)]
    if not lines:
        raise PassagesError(f"{data} holds no question of this task.")
    with output_file(target, parents=True) as file:
        file.write("".join(lines).encode("utf-8"))


def eval_options(settings: dict[str, Any], model: str) -> list[str]:
    """The options of `ragengine eval` for a task of tasks.toml, decoded as RAG-Token or RAG-Sequence."""
    kind = settings["decoding"]
    decoding = {"task": kind, "marginalize": model, **CONFIG["decoding"][kind][model]}
    labels = [("label", label) for label in settings.get("labels", {}).values()]
    pairs = [*decoding.items(), *labels]
    return [text for name, value in pairs for text in (f"--{name.replace('_', '-')}", str(value))]


def show(settings: dict[str, Any], model: str, result: dict[str, Any]) -> None:
    """Print the paper's figures beside the measured ones, in percent."""
    click.echo(f"{settings['title']}, RAG-{model.capitalize()}, {result['n']} questions")
    for name, reported in settings["paper"][model].items():
        value = result.get(name)
        here = "no answerable question" if value is None else f"{100 * value:5.1f}"
        click.echo(f"  {name:15} paper {reported:5.1f}   here {here}")


if __name__ == "__main__":
    main()
