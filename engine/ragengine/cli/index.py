"""``ragengine index``: build, describe and check an index."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from ragengine.retrieval.index import IndexManifest


@click.group()
def index() -> None:
    """Build, describe and check an index of passages."""


@index.command()
@click.argument("passages", type=click.Path())
@click.argument("index", type=click.Path())
@click.option("--bundle", required=True, type=click.Path(), help="The bundle whose passage encoder is used.")
@click.option("--factory", metavar="STR", help="FAISS factory string.  [default: Flat, which is exact]")
@click.option(
    "--recall",
    metavar="R",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall@5 to reach with an approximate factory.",
)
@click.option(
    "--embeddings",
    type=click.Path(),
    metavar="FILE.npy",
    help="Vectors of the passages, float32 [passages, E], in file order, instead of encoding them.",
)
def build(
    passages: str, index: str, bundle: str, factory: str | None, recall: float, embeddings: str | None
) -> None:
    """Build INDEX from PASSAGES.

    PASSAGES is a .tsv with the header id, text, title, a .jsonl of {"id", "title", "text"}, or a folder
    written by datasets.Dataset.save_to_disk.
    """
    from ragengine.retrieval.build import build_index

    with _progress_bar() as progress:
        manifest = build_index(
            passages,
            index,
            bundle=bundle,
            embeddings=embeddings,
            factory=factory,
            recall=recall,
            progress=progress,
        )
    _print_table(index, manifest)
    if manifest.recall is not None and manifest.recall < recall:
        click.echo(
            f"The recall@5 is {manifest.recall:.3f}, below the {recall} asked for; "
            "a factory that keeps more of each vector, or Flat, reaches it.",
            err=True,
        )


@index.command()
@click.argument("index", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def info(index: str, as_json: bool) -> None:
    """Describe INDEX."""
    from ragengine.retrieval.index import IndexManifest

    manifest = IndexManifest.read(index)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False))
    else:
        _print_table(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
def verify(index: str) -> None:
    """Check INDEX: hashes, counts, vectors, and that FAISS holds what is stored."""
    from ragengine.retrieval.index import PassageIndex

    with PassageIndex.open(index, verify="sha256") as opened:
        opened.verify()
        click.echo(f"{index} is whole: {opened.count} passages of {opened.dimension} dimensions.")


def _print_table(index: str, manifest: "IndexManifest") -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    encoder = manifest.encoder
    table = Table(title=Text(f"index {index}"), show_header=False, title_justify="left")
    rows = {
        "passages": f"{manifest.count:,}",
        "dimension": str(manifest.dimension),
        "metric": manifest.metric.replace("_", " "),
        "factory": manifest.factory,
        "search settings": ", ".join(f"{name} {value}" for name, value in manifest.search.items()) or "none",
        "recall@5": "not measured" if manifest.recall is None else f"{manifest.recall:.3f}",
        "encoder": f"{encoder.name} ({encoder.kind.replace('_', ' ')}, {encoder.fingerprint[:12]})",
        "made by": manifest.created_by,
        "made from": ", ".join(f"{name}: {value}" for name, value in manifest.created_from.items()),
        **{name: decimal(entry.size) for name, entry in manifest.files.items()},
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))  # Text: names from a file are not markup
    Console().print(table)


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr with passages a second and the time left, as the callback of ``build_index``."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn | str] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        reading = bar.add_task("reading passages", total=None, rate="")
        writing = bar.add_task("vectors", total=None, rate="", visible=False, start=False)

        def report(done: int, total: int | None) -> None:
            if total is not None and not bar.tasks[writing].started:
                bar.update(reading, total=total, completed=total, rate="")
                bar.start_task(writing)
            task = reading if total is None else writing
            speed = bar.tasks[task].speed
            bar.update(
                task, completed=done, total=total, visible=True, rate=f"{speed:,.0f}/s" if speed else ""
            )

        yield report
