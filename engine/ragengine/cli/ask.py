"""`ragengine ask`: answer questions and show their documents, or answer recorded questions again."""

from pathlib import Path
from typing import Any

import click

from ragengine.cli.common import device_options, generation_options, given, verify_option
from ragengine.cli.output import echo, print_json

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.argument("index", type=click.Path(path_type=Path), required=False)
@click.argument("questions", nargs=-1, metavar="QUESTION...")
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
@click.option("--doc-pruning", type=float, help="Do not read documents whose prior p(z|x) is less than this.")
@generation_options
@device_options
@verify_option
def ask(
    bundle: Path | None, index: Path | None, questions: tuple[str, ...], as_json: bool, explain: bool,
    plot: Path | None, record: Path | None, replayed: Path | None, abstain: bool, device: Any,
    search_device: Any, threads: int | None, verify: Any, **settings: Any,
) -> None:  # fmt: skip
    """Answer each QUESTION with the model in BUNDLE from the passages in INDEX.

    With --replay FILE give no question; BUNDLE and INDEX are by default those of the record.  The exit code
    is 0 when everything is as recorded, and 1 when something differs.
    """
    options = given(**settings)
    placing = {"device": device, "search_device": search_device, "threads": threads, "verify": verify}
    if replayed is not None:
        if questions or options or plot or record or explain or as_json or abstain:
            raise click.UsageError("--replay takes questions and options from its file; give no others.")
        _replay(replayed, bundle, index, **placing)
        return
    if bundle is None or index is None or not questions:
        raise click.UsageError("Missing argument: BUNDLE INDEX QUESTION... (or --replay FILE) are needed.")
    from ragengine.cli.console import SafeConsole
    from ragengine.cli.explain import print_answer
    from ragengine.engine import RagEngine
    from ragengine.replay import Record, write_records

    records = []
    with RagEngine.load(bundle, index=index, **placing) as engine:
        console = SafeConsole()
        for number, question in enumerate(questions, 1):
            answer = whole = engine.generate(question, **options)
            if abstain:
                answer = whole.abstain()
            if as_json:
                print_json(answer.to_dict())
            else:
                print_answer(console, answer, explain=explain)
            if plot is not None:
                whole.plot(plot if len(questions) == 1 else plot.with_stem(f"{plot.stem}-{number}"))
            if record is not None:
                records.append(Record.of(engine, whole))
    if record is not None:
        write_records(record, records)


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
