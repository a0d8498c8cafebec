"""`ragengine eval`: how good the answers and the retrieval are on questions with known answers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragengine.cli.common import device_options, generation_options, given, name_value_pairs, verify_option

if TYPE_CHECKING:
    from ragengine.evaluation.systems import System

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
    if labels and task != "classification":
        raise click.UsageError("--label is for --task classification alone.")
    if answer_prefix is not None and not likelihood:
        raise click.UsageError("--answer-prefix is for --likelihood alone.")
    from ragengine import evaluation
    from ragengine.cli.evaluation_tables import print_report
    from ragengine.evaluation.statistics import Resampling
    from ragengine.evaluation.systems import System, check_systems

    asked = evaluation.read_questions(questions)
    options = given(**settings)
    systems = [System(bundle, index, options)]
    if compare or compare_index or compared:
        systems.append(System(compare or bundle, compare_index or index, options | compared))
    # one is in memory at a time: what is wrong with the second must not wait for the answers of the first
    check_systems(systems, ks=ks, verify=verify)
    # so every byte that --verify asks for has been read
    loading = {"device": device, "search_device": search_device, "threads": threads, "verify": "size"}
    measuring = {
        "task": task,
        "labels": labels,
        "ks": ks,
        "likelihood": likelihood,
        "answer_prefix": answer_prefix,
    }
    resampling = Resampling(resamples, seed=resampling_seed)
    values: list[list[Any]] = []
    reports: list[dict[str, Any]] = []
    for system in systems:
        values.append(_measured(system, asked, loading, measuring))
        said = {"bundle": str(system.bundle), "index": str(system.index), "questions": str(questions)}
        report = evaluation.report(values[-1], task=task, resampling=resampling)
        reports.append(report | {"measured": said | {"options": system.options}})
    result = reports[0]
    if len(systems) == 2:
        result["compared"] = reports[1]
        result["comparison"] = evaluation.compare(values[0], values[1], resampling, task=task)
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_report(result)


def _measured(
    system: "System", asked: list[Any], loading: dict[str, Any], measuring: dict[str, Any]
) -> list[Any]:
    """Load a system, ask it everything under a progress bar, and close it."""
    from rich.console import Console
    from rich.progress import Progress

    from ragengine.engine import RagEngine
    from ragengine.evaluation import measure

    engine = RagEngine.load(system.bundle, index=system.index, **loading)
    with engine, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("answering", total=len(asked))
        return measure(engine, asked, progress=lambda n: bar.advance(task, n), **measuring, **system.options)
