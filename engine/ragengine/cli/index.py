"""``ragengine index``: build, change, describe and check an index."""

import dataclasses
import importlib
import json
from typing import TYPE_CHECKING

import click

from ragengine.cli.index_progress import progress_bars
from ragengine.cli.index_table import print_manifest

if TYPE_CHECKING:
    from ragengine.retrieval.index import IndexManifest


class _IndexCommands(click.Group):
    """The group ``index``; ``import`` lives in a module of its own, loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "import"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "import":
            command: click.Command = importlib.import_module("ragengine.cli.index_import").import_command
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_IndexCommands)
def index() -> None:
    """Build, change, describe and check indexes of passages."""


_bundle = click.option(
    "--bundle", required=True, type=click.Path(), help="The bundle whose passage encoder is used."
)
_embeddings = click.option(
    "--embeddings",
    type=click.Path(),
    metavar="FILE.npy",
    help="Vectors of the passages, float32 [passages, E], in file order, instead of encoding them.",
)
_batch_tokens = click.option(
    "--batch-tokens",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens the encoder reads at once; on a GPU 16384 and more.",
)
_threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads.  [default: all cores]"
)


@index.command()
@click.argument("passages", type=click.Path())
@click.argument("index", type=click.Path())
@_bundle
@click.option(
    "--factory",
    metavar="STR",
    help="FAISS factory string.  [default: Flat, which is exact, below 50,000 passages; then OPQ + IVF + PQ]",
)
@click.option(
    "--recall",
    metavar="R",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall@5 to reach with an approximate factory.",
)
@_embeddings
@click.option(
    "--queries",
    type=click.Path(),
    metavar="FILE.npy",
    help="Question vectors, float32 [Q, E], to measure the recall with, instead of passages.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Draws the samples.")
@click.option("--resume", is_flag=True, help="Go on with a build of INDEX that was killed or interrupted.")
@_batch_tokens
@_threads
def build(
    passages: str,
    index: str,
    bundle: str,
    factory: str | None,
    recall: float,
    embeddings: str | None,
    queries: str | None,
    seed: int,
    resume: bool,
    batch_tokens: int,
    threads: int | None,
) -> None:
    """Build INDEX from PASSAGES.

    PASSAGES is a .tsv with the header id, text, title, a .jsonl of {"id", "title", "text"}, a folder written
    by datasets.Dataset.save_to_disk, or .txt and .md files or a folder of them, split into passages of 100
    words.
    """
    from ragengine.retrieval.build import build_index

    with progress_bars() as progress:
        manifest = build_index(
            passages,
            index,
            bundle=bundle,
            embeddings=embeddings,
            queries=queries,
            factory=factory,
            recall=recall,
            seed=seed,
            resume=resume,
            batch_tokens=batch_tokens,
            threads=threads,
            progress=progress,
            on_plan=lambda plan: click.echo(f"{plan.factory}: {plan.reason}.", err=True),
        )
    _print_result(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
@click.argument("passages", type=click.Path())
@_bundle
@_embeddings
@_batch_tokens
@_threads
def add(
    index: str,
    passages: str,
    bundle: str,
    embeddings: str | None,
    batch_tokens: int,
    threads: int | None,
) -> None:
    """Add PASSAGES to INDEX without building it again.

    The rotation, lists and codes that were trained stay; the search settings are tuned again.
    """
    from ragengine.retrieval.update import add_passages

    with progress_bars() as progress:
        manifest = add_passages(
            index,
            passages,
            bundle=bundle,
            embeddings=embeddings,
            batch_tokens=batch_tokens,
            threads=threads,
            progress=progress,
        )
    _print_result(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_threads
def delete(index: str, ids: tuple[str, ...], threads: int | None) -> None:
    """Delete the passages with these IDs from INDEX."""
    from ragengine.retrieval.update import delete_passages

    with progress_bars() as progress:
        manifest = delete_passages(index, ids, threads=threads, progress=progress)
    _print_result(index, manifest)


@index.command()
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.argument("index", type=click.Path())
@_threads
def merge(first: str, second: str, index: str, threads: int | None) -> None:
    """Write INDEX with the passages of FIRST and SECOND, two indexes of one encoder.

    The FAISS index is FIRST's with the vectors of SECOND added: give the larger one first.
    """
    from ragengine.retrieval.update import merge_indexes

    with progress_bars() as progress:
        manifest = merge_indexes(first, second, index, threads=threads, progress=progress)
    _print_result(index, manifest)


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
        print_manifest(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
def verify(index: str) -> None:
    """Check INDEX: hashes, counts, vectors, that FAISS holds what is stored, and the recall again."""
    from ragengine.retrieval.index import PassageIndex

    with PassageIndex.open(index, verify="sha256") as opened:
        opened.verify()
        click.echo(f"{index} is whole: {opened.count} passages of {opened.dimension} dimensions.")


def _print_result(index: str, manifest: "IndexManifest") -> None:
    print_manifest(index, manifest)
    tuning = manifest.tuning
    if tuning is not None and manifest.recall is not None and manifest.recall < tuning.target:
        click.echo(
            f"The recall@{tuning.n_docs} is {manifest.recall:.3f}, below the {tuning.target} asked for; "
            "a factory that keeps more of each vector, or Flat, reaches it.",
            err=True,
        )
