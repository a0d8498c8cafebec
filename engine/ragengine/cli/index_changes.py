"""``ragengine index sync|upsert|compact``: bring an index up to date."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from ragengine.cli.index_options import (
    batch_tokens_option,
    bundle_option,
    embeddings_option,
    print_result,
    reading_options,
    threads_option,
)
from ragengine.cli.index_progress import progress_bars
from ragengine.cli.output import echo, print_json

if TYPE_CHECKING:
    from ragengine.indexing.sync import SyncResult

_SHOWN = 20


@click.command("sync")
@click.argument("passages", metavar="FOLDER...", type=click.Path(), nargs=-1, required=True)
@click.argument("index", type=click.Path())
@bundle_option
@reading_options
@click.option("--dry-run", is_flag=True, help="List what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Delete what INDEX holds of other origins than FOLDER.")
@click.option("--watch", is_flag=True, help="Go on, and sync whenever files change; Ctrl-C ends it.")
@click.option(
    "--every",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.01),
    metavar="SECONDS",
    help="How often --watch looks.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a sync, on one line.")
@batch_tokens_option
@threads_option
def sync_command(
    passages: tuple[str, ...],
    index: str,
    bundle: str,
    dry_run: bool,
    force: bool,
    watch: bool,
    every: float,
    as_json: bool,
    batch_tokens: int,
    threads: int | None,
    **reading: Any,
) -> None:
    """Make INDEX hold what FOLDER, or other inputs of index build, hold now.

    Passages with the same title and text keep their vectors; only new and changed ones are encoded.
    """
    if watch and dry_run:
        raise click.UsageError("--watch changes the index and --dry-run does not; give one of the two.")
    from ragengine import sync_index
    from ragengine.errors import RagEngineError
    from ragengine.indexing.watching import file_changes

    def once() -> None:
        with progress_bars() as progress:
            result = sync_index(
                passages,
                index,
                bundle=bundle,
                dry_run=dry_run,
                force=force,
                **reading,
                batch_tokens=batch_tokens,
                threads=threads,
                progress=progress,
            )
        if as_json:
            print_json({**dataclasses.asdict(result), "manifest": dataclasses.asdict(result.manifest)})
        else:
            _print_sync(result, index, dry_run=dry_run)

    if not watch:
        once()
        return
    for number, _ in enumerate(file_changes(passages, every)):
        try:
            once()
        except RagEngineError as error:
            if not number:
                raise
            # A file that is half written, say: the next change may mend it.
            echo(f"ragengine: {error}", err=True)


@click.command("upsert")
@click.argument("index", type=click.Path())
@click.argument("passages", type=click.Path(), nargs=-1, required=True, metavar="PASSAGES...")
@bundle_option
@reading_options
@embeddings_option
@batch_tokens_option
@threads_option
def upsert_command(
    index: str,
    passages: tuple[str, ...],
    bundle: str,
    embeddings: str | None,
    batch_tokens: int,
    threads: int | None,
    **reading: Any,
) -> None:
    """Add PASSAGES to INDEX, each in the place of the passage with its id, where there is one."""
    from ragengine import upsert_passages

    with progress_bars() as progress:
        manifest = upsert_passages(
            index,
            passages,
            bundle=bundle,
            **reading,
            embeddings=embeddings,
            batch_tokens=batch_tokens,
            threads=threads,
            progress=progress,
        )
    print_result(index, manifest)


@click.command("compact")
@click.argument("index", type=click.Path())
@click.option(
    "--factory",
    metavar="STR",
    help="FAISS factory string.  [default: your own of the build, else what build would take now]",
)
@click.option(
    "--recall",
    metavar="R",
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall@5 to reach with an approximate index.  [default: as before]",
)
@threads_option
def compact_command(index: str, factory: str | None, recall: float | None, threads: int | None) -> None:
    """Build the FAISS index of INDEX again from the vectors that are there, after many changes."""
    from ragengine import compact_index

    with progress_bars() as progress:
        manifest = compact_index(
            index,
            factory=factory,
            recall=recall,
            threads=threads,
            progress=progress,
            on_plan=lambda plan: echo(f"{plan.factory}: {plan.reason}.", err=True),
        )
    print_result(index, manifest)


def _print_sync(result: "SyncResult", index: str, *, dry_run: bool) -> None:
    """The ids of what changed, and a line with the counts."""
    moved = [f"{old} -> {new}" for old, new in result.moved]
    for sign, ids in (("+", result.added), ("~", result.changed), (">", moved), ("-", result.deleted)):
        shown = ids if dry_run else ids[:_SHOWN]
        for id in shown:
            echo(f"{sign} {id}")
        if len(ids) > len(shown):
            echo(f"{sign} and {len(ids) - len(shown)} more")
    would = "would be " if dry_run else ""
    echo(
        f"{index}: {len(result.added)} added, {len(result.changed)} changed, {len(moved)} moved, "
        f"{len(result.deleted)} deleted, {result.unchanged} unchanged; {result.encoded} {would}encoded."
    )
