"""`ragengine eval`: how good the answers and the retrieval are on questions with known answers."""

import json
from pathlib import Path
from typing import Any

import click

from ragengine.cli.common import device_options, generation_options, given, name_value_pairs, verify_option

_PATH = click.Path(path_type=Path)


@click.command("eval")
@click.argument("bundle", type=_PATH)
@click.argument("index", type=_PATH)
@click.argument("questions", type=_PATH, metavar="QUESTIONS.jsonl")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--task",
    type=click.Choice(["qa", "generation", "classification"]),
    default="qa",
    show_default=True,
    help="Also ROUGE-L and BLEU of long answers, or label accuracy; needs ragengine[eval] for the former.",
)
@click.option(
    "--label", "labels", multiple=True, help="A class label; may be repeated [default: the first answers]."
)
@click.option(
    "--k",
    "ks",
    type=int,
    multiple=True,
    help="Documents that recall and precision count; may be repeated [default: 1, 5, n_docs].",
)
@click.option("--likelihood", is_flag=True, help="Also log p(first answer | question); reads twice.")
@click.option(
    "--answer-prefix", help="Put before the answer for that [default: a space if the model writes one]."
)
@click.option("--compare", type=_PATH, metavar="BUNDLE", help="Ask this bundle, too; paired tests.")
@click.option("--compare-index", type=_PATH, metavar="INDEX", help="Its index [default: INDEX].")
@click.option(
    "--compare-set",
    "compared",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value_pairs,
    help="Its generation options where they differ, as --set; without --compare, of the same bundle.",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Draws for 95 % intervals and permutation tests; 0: none of these.",
)
@click.option("--resampling-seed", type=click.IntRange(0), default=0, show_default=True, help="Their seed.")
@generation_options
@device_options
@verify_option
def evaluate(
    bundle: Path,
    index: Path,
    questions: Path,
    as_json: bool,
    task: Any,
    labels: tuple[str, ...],
    ks: tuple[int, ...],
    likelihood: bool,
    answer_prefix: str | None,
    compare: Path | None,
    compare_index: Path | None,
    compared: dict[str, Any],
    resamples: int,
    resampling_seed: int,
    device: Any,
    search_device: Any,
    threads: int | None,
    verify: Any,
    **settings: Any,
) -> None:
    """Measure the model in BUNDLE with INDEX on QUESTIONS.jsonl.

    docs/evaluation.md defines every figure.
    """
    from ragengine import evaluation
    from ragengine.cli.evaluation_tables import print_report
    from ragengine.errors import InputError
    from ragengine.evaluation.statistics import Resampling

    asked = evaluation.read_questions(questions)
    for path in (compare, compare_index):
        if path is not None and not path.exists():  # said before the first bundle is asked everything
            raise InputError(f"{path} does not exist; --compare and --compare-index take folders.")
    loading = {"device": device, "search_device": search_device, "threads": threads, "verify": verify}
    measuring = {
        "task": task,
        "labels": labels,
        "ks": ks,
        "likelihood": likelihood,
        "answer_prefix": answer_prefix,
    }
    options = given(**settings)
    resampling = Resampling(resamples, seed=resampling_seed)

    def measured(bundle: Path, index: Path, options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        values = _measured(bundle, index, asked, loading, measuring | options)
        said = {"bundle": str(bundle), "index": str(index), "questions": str(questions), "options": options}
        return values, evaluation.report(values, task=task, resampling=resampling) | {"measured": said}

    first, result = measured(bundle, index, options)
    if compare or compare_index or compared:
        second, other = measured(compare or bundle, compare_index or index, options | compared)
        result |= {"compared": other, "comparison": evaluation.compare(first, second, resampling)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_report(result)


def _measured(
    bundle: Path, index: Path, asked: list[Any], loading: dict[str, Any], settings: dict[str, Any]
) -> list[Any]:
    """Load a bundle, ask it everything under a progress bar, and close it."""
    from rich.console import Console
    from rich.progress import Progress

    from ragengine.engine import RagEngine
    from ragengine.evaluation import measure

    engine = RagEngine.load(bundle, index=index, **loading)
    with engine, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("answering", total=len(asked))
        return measure(engine, asked, progress=lambda n: bar.advance(task, n), **settings)
