"""`ragengine eval`: answers and retrieval measured on questions with known answers."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragengine.cli.common import (
    device_options,
    filter_option,
    folder_options,
    generation_options,
    given,
    name_value_pairs,
    placed,
    progress_bar,
    reading_options,
    remote_options,
    verify_option,
)
from ragengine.cli.output import print_json

if TYPE_CHECKING:
    from ragengine.evaluation import Evaluation

_PATH = click.Path(path_type=Path)


@click.command("eval")
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@click.argument("questions", required=False, metavar="QUESTIONS.jsonl")
@folder_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--task",
    type=click.Choice(["qa", "generation", "classification"]),
    default="qa",
    show_default=True,
    help="Also ROUGE-L and BLEU of long answers (needs the extra eval), or label accuracy.",
)
@click.option(
    "--metrics",
    type=click.Choice(["squad", "kilt", "dpr"]),
    default="squad",
    show_default=True,
    help="Whose definition of exact match, F1 and ROUGE-L (dpr: exact match alone, needs the extra eval).",
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
@click.option(
    "--likelihood",
    is_flag=True,
    help="Also log p(first answer | question), for which documents are read again.",
)
@click.option(
    "--answer-prefix",
    help="Put before the answer for --likelihood [default: a space if the model's answers begin with one].",
)
@click.option("--compare", type=_PATH, metavar="BUNDLE", help="Evaluate this bundle, too, with paired tests.")
@click.option("--compare-index", type=_PATH, metavar="INDEX", help="Its index [default: INDEX].")
@click.option(
    "--compare-set",
    "compared",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value_pairs,
    help="Its generation options where they differ, as --set; without --compare, those of BUNDLE.",
)
@click.option("--closed-book", is_flag=True, help="Evaluate the generator alone, too, with paired tests.")
@click.option(
    "--all-checkpoints",
    type=_PATH,
    metavar="FOLDER",
    help="Evaluate every model in FOLDER, such as the output of ragengine train, and print one table; "
    "checkpoints are exported first. BUNDLE and, where FOLDER has one, INDEX may be left out.",
)
@click.option(
    "--predictions",
    type=_PATH,
    metavar="FOLDER",
    help="Keep answers here under the fingerprint of bundle, index and options, and reuse those.",
)
@click.option("--abstain", is_flag=True, help="Give no text where the confidence is low (see calibrate).")
@click.option(
    "--wrong",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="How many wrong answers to show beside the expected ones.",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Samples for 95 % intervals and tests; 0 for none of these.",
)
@click.option(
    "--resampling-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The seed of these samples.",
)
@reading_options
@filter_option
@generation_options
@device_options
@verify_option
@remote_options
def evaluate_command(
    bundle: str | None,
    index: str | None,
    questions: str | None,
    bundle_folder: Path | None,
    index_folder: Path | None,
    as_json: bool,
    task: Any,
    metrics: Any,
    labels: tuple[str, ...],
    ks: tuple[int, ...],
    likelihood: bool,
    answer_prefix: str | None,
    compare: Path | None,
    compare_index: Path | None,
    compared: dict[str, Any],
    closed_book: bool,
    all_checkpoints: Path | None,
    predictions: Path | None,
    abstain: bool,
    wrong: int,
    resamples: int,
    resampling_seed: int,
    filter: dict[str, list[str]] | None,
    doc_pruning: float | None,
    adaptive_reading: bool | None,
    device: Any,
    search_device: Any,
    threads: int | None,
    verify: Any,
    remote: Any,
    **settings: Any,
) -> None:
    """Measure the model in BUNDLE with INDEX on QUESTIONS.jsonl.

    docs/guides/evaluation.md defines every figure.
    """
    if labels and task != "classification":
        raise click.UsageError("--label is for --task classification alone.")
    if answer_prefix is not None and not likelihood:
        raise click.UsageError("--answer-prefix is for --likelihood alone.")
    if sum((bool(compare or compare_index or compared), closed_book, all_checkpoints is not None)) > 1:
        raise click.UsageError("give one of --compare..., --closed-book and --all-checkpoints.")
    arguments = [word for word in (bundle, index, questions) if word is not None]
    if all_checkpoints is not None and len(arguments) == 1:
        model, passages, files = bundle_folder, index_folder, arguments
    else:
        model, passages, files = placed(arguments, bundle_folder, index_folder)
    alone = all_checkpoints is not None and model is None
    if len(files) != 1 or not (alone or (model is not None and passages is not None)):
        raise click.UsageError("BUNDLE, INDEX and one QUESTIONS.jsonl are needed.")
    from ragengine.cli.checkpoints import models_in
    from ragengine.engine import RagEngine
    from ragengine.evaluation import Source, evaluate, read_questions
    from ragengine.evaluation.systems import System, check_systems

    asked = read_questions(file := Path(files[0]))  # once: the file may be a pipe
    options = given(**settings)
    systems: list[System] = []
    if all_checkpoints is not None:
        models = models_in(all_checkpoints, model, passages, threads)
        systems = [System(one.bundle, one.index, options) for one in models]
    elif model is not None and passages is not None:
        systems = [System(model, passages, options)]
        if compare or compare_index or compared:
            systems.append(System(compare or model, compare_index or passages, options | compared))
        if closed_book:
            systems.append(System(model, passages, options, closed_book=True))
    # One is in memory at a time, so what is wrong with the second is found before the first answers.
    check_systems(systems, ks=ks, verify=verify, remote=remote)
    reading: dict[str, Any] = {"doc_pruning": doc_pruning, "adaptive_reading": bool(adaptive_reading)}
    evaluations = []
    for system in systems:
        engine = RagEngine.load(
            system.bundle,
            index=system.index,
            device=device,
            search_device=search_device,
            threads=threads,
            remote=remote,
            verify="size",  # every byte that --verify asks for has been read above
        )
        with engine, progress_bar("answering") as progress:
            found = evaluate(
                engine,
                asked,
                task=task,
                metrics=metrics,
                labels=labels,
                ks=ks,
                likelihood=likelihood,
                answer_prefix=answer_prefix,
                abstain=abstain,
                closed_book=system.closed_book,
                predictions=predictions,
                resamples=resamples,
                resampling_seed=resampling_seed,
                progress=progress,
                filter=filter,
                **({} if system.closed_book else reading),
                **system.options,
            )
        source = Source(
            str(system.bundle), str(system.index), str(file), system.options, filter, system.closed_book
        )
        evaluations.append(dataclasses.replace(found, source=source))
    if all_checkpoints is not None:
        _print_checkpoints(evaluations, as_json=as_json)
    else:
        _print_result(evaluations, as_json=as_json, wrong=wrong)


def _print_checkpoints(evaluations: "list[Evaluation]", *, as_json: bool) -> None:
    """Each checkpoint of a training, and the best of them."""
    from ragengine.cli.evaluation_tables import best_checkpoint, print_checkpoints

    if as_json:
        best = best_checkpoint(evaluations).source
        named = best and {"bundle": best.bundle, "index": best.index}
        print_json({"checkpoints": [found.to_dict() for found in evaluations], "best": named})
    else:
        print_checkpoints(evaluations)


def _print_result(evaluations: "list[Evaluation]", *, as_json: bool, wrong: int) -> None:
    """One evaluation, or the comparison of two."""
    from ragengine.cli.evaluation_tables import print_evaluation

    first, *others = evaluations
    result = first.compare(others[0]) if others else first
    if as_json:
        print_json(result.to_dict())
    else:
        print_evaluation(result, wrong=wrong)
