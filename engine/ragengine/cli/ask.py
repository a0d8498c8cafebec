"""`ragengine ask`: answer questions and show their documents, or answer recorded questions again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ragengine.cli.common import (
    device_options,
    filter_option,
    folder_options,
    generation_options,
    given,
    placed,
    progress_bar,
    reading_options,
    remote_options,
    verify_option,
)
from ragengine.cli.output import echo, print_json

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@click.argument("questions", nargs=-1, metavar="QUESTION...")
@folder_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a question, on one line.")
@click.option("--explain", is_flag=True, help="Show every token's posterior over the documents.")
@click.option("--plot", type=FILE, help="Draw that as PNG or SVG; of several questions, FILE-1, FILE-2, ...")
@click.option("--record", type=FILE, help="Write what is needed to repeat the answers, as JSON.")
@click.option(
    "--replay",
    "replayed",
    type=FILE,
    help="Answer the questions of a recorded FILE again and say what differs.",
)
@click.option("--abstain", is_flag=True, help="Give no text where the confidence is low (see calibrate).")
@click.option("--deadline", type=float, help="Seconds that a question may take [default: no limit].")
@reading_options
@click.option("--file", "source", type=FILE, help="Answer the questions of this file: JSONL, or one a line.")
@click.option("--output", type=FILE, help="Write the answers of --file here, one JSON object a line.")
@click.option("--processes", type=click.IntRange(1), help="Processes that answer --file [default: 1].")
@click.option("--batch-size", type=click.IntRange(1), help="Questions answered together [default: 8].")
@click.option(
    "--on-error",
    type=click.Choice(["record", "stop"]),
    help="A question of --file that fails: write its error, or end [default: record].",
)
@click.option("--force", is_flag=True, help="Begin --output anew, and replace what is there.")
@filter_option
@generation_options
@device_options
@verify_option
@click.option(
    "--allow-partial", is_flag=True, help="Answer without shards that do not answer, and name them."
)
@remote_options
def ask(
    bundle: str | None, index: str | None, questions: tuple[str, ...], bundle_folder: Path | None,
    index_folder: Path | None, as_json: bool, explain: bool, plot: Path | None, record: Path | None,
    replayed: Path | None, abstain: bool, source: Path | None, output: Path | None, processes: int | None,
    batch_size: int | None, on_error: Any, force: bool, device: Any, search_device: Any, threads: int | None,
    verify: Any, remote: Any, allow_partial: bool, **settings: Any,
) -> None:  # fmt: skip
    """Answer each QUESTION with the model in BUNDLE from the passages in INDEX.

    With --file FILE --output ANSWERS give no question.  A run that was killed goes on when it is started
    again.  The exit code is 1 when a question has an error instead of an answer.

    With --replay FILE give no question; BUNDLE and INDEX are by default those of the record.  The exit code
    is 0 when everything is as recorded, and 1 when something differs.
    """
    model, passages, asked = placed([bundle, index, *questions], bundle_folder, index_folder)
    options = given(**settings)
    placing = {"device": device, "search_device": search_device, "threads": threads, "verify": verify}
    placing |= {"remote": remote, "allow_partial": allow_partial}
    running = {"processes": processes, "batch_size": batch_size, "on_error": on_error}
    running = {name: value for name, value in running.items() if value is not None}
    if source is not None or output is not None:
        if model is None or passages is None or asked or source is None or output is None:
            raise click.UsageError("BUNDLE INDEX --file FILE --output ANSWERS are needed, and no QUESTION.")
        if plot or record or explain or replayed is not None:
            raise click.UsageError("--file goes with none of --plot, --record, --explain and --replay.")
        if placing.pop("allow_partial"):
            raise click.UsageError(
                "--allow-partial is not for --file, whose answers are those of the whole index."
            )
        _answer_file(
            model, passages, source, output, as_json, force=force, abstain=abstain,
            **running, **placing, **options,
        )  # fmt: skip
        return
    if running or force:
        raise click.UsageError("--processes, --batch-size, --on-error and --force are for --file alone.")
    if replayed is not None:
        if asked or options or plot or record or explain or as_json or abstain:
            raise click.UsageError("--replay takes questions and options from its file; give no others.")
        _replay(replayed, model, passages, **placing)
        return
    if model is None or passages is None or not asked:
        raise click.UsageError("Missing argument: BUNDLE INDEX QUESTION... (or --replay FILE) are needed.")
    from ragengine.cli.console import SafeConsole
    from ragengine.cli.explain import print_answer
    from ragengine.engine import RagEngine
    from ragengine.plot import check_drawable
    from ragengine.replay import Record, write_records

    if plot is not None:
        check_drawable(plot)
    records = []
    with RagEngine.load(model, index=passages, **placing) as engine:
        console = SafeConsole()
        for number, question in enumerate(asked, 1):
            answer = whole = engine.generate(question, **options)
            if abstain:
                answer = whole.abstain()
            if as_json:
                print_json(answer.to_dict())
            else:
                print_answer(console, answer, explain=explain)
            if plot is not None:
                whole.plot(plot if len(asked) == 1 else plot.with_stem(f"{plot.stem}-{number}"))
            if record is not None:
                records.append(Record.of(engine, whole))
    if record is not None:
        write_records(record, records)


def _answer_file(
    bundle: Path, index: Path, source: Path, output: Path, as_json: bool, **settings: Any
) -> None:
    """Answer a file of questions; exit with 1 if one has an error."""
    from ragengine.batch_inference.run import answer_file

    with progress_bar("answering") as progress:
        done = answer_file(bundle, index, source, output, progress=progress, **settings)
    if as_json:
        print_json({**asdict(done), "output": str(done.output)})
    else:
        before = f", {done.resumed} of them before" if done.resumed else ""
        echo(f"{done.output}: {done.questions} questions{before}, in {done.seconds:.1f} s.")
    if done.failed:
        echo(f"ragengine: {done.failed} of {done.questions} have an error instead of an answer.", err=True)
        click.get_current_context().exit(1)


def _replay(file: Path, bundle: Path | None, index: Path | None, **settings: Any) -> None:
    """Replay the records of a file in order; exit with 1 if an answer differs."""
    from ragengine.engine import RagEngine
    from ragengine.replay import read_records, replay

    differing = 0
    engines: dict[tuple[Path, Path], RagEngine] = {}
    for record in read_records(file):
        folders = bundle or Path(record.bundle.path), index or Path(record.index.path)
        if folders not in engines:
            engines[folders] = RagEngine.load(folders[0], index=folders[1], **settings)
        found = replay(engines[folders], record)
        differing += bool(found.differences)
        echo(record.question)
        echo(f"  {found.answer.text.rstrip() or '(no text)'}")
        for difference in found.differences or ("the same",):
            echo(f"  {difference}")
    for engine in engines.values():
        engine.close()
    if differing:
        click.get_current_context().exit(1)
