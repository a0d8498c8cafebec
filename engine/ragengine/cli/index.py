"""``ragengine index``: build, change, describe and check an index."""

from typing import Any

import click

from ragengine.cli.common import force_option, may_replace
from ragengine.cli.index_build import build_command
from ragengine.cli.index_changes import compact_command, sync_command, upsert_command
from ragengine.cli.index_import import import_command
from ragengine.cli.index_look import list_command, search_command, show_command
from ragengine.cli.index_options import (
    batch_tokens_option,
    bundle_option,
    embeddings_option,
    print_result,
    reading_options,
    threads_option,
)
from ragengine.cli.index_progress import progress_bars
from ragengine.cli.index_table import print_manifest
from ragengine.cli.output import echo, print_json
from ragengine.messages import short_repr


@click.group()
def index() -> None:
    """Build, change, search, describe and check indexes of passages."""


for _command in (
    build_command,
    import_command,
    sync_command,
    upsert_command,
    compact_command,
    list_command,
    show_command,
    search_command,
):
    index.add_command(_command)


@index.command()
@click.argument("index", type=click.Path())
@click.argument("passages", type=click.Path(), nargs=-1, required=True, metavar="PASSAGES...")
@bundle_option
@reading_options
@embeddings_option
@batch_tokens_option
@threads_option
def add(
    index: str,
    passages: tuple[str, ...],
    bundle: str,
    embeddings: str | None,
    batch_tokens: int,
    threads: int | None,
    **reading: Any,
) -> None:
    """Add PASSAGES, one or more inputs, to INDEX without building it again.

    The rotation, lists and codes that were trained stay; the search settings are tuned again.
    """
    from ragengine import add_passages

    with progress_bars() as progress:
        manifest = add_passages(
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


@index.command()
@click.argument("index", type=click.Path())
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@threads_option
def delete(index: str, ids: tuple[str, ...], threads: int | None) -> None:
    """Delete the passages with these IDs from INDEX."""
    from ragengine import delete_passages

    with progress_bars() as progress:
        manifest = delete_passages(index, ids, threads=threads, progress=progress)
    print_result(index, manifest)


@index.command()
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.argument("index", type=click.Path())
@force_option
@threads_option
def merge(first: str, second: str, index: str, force: bool, threads: int | None) -> None:
    """Write INDEX with the passages of FIRST and SECOND, two indexes of one encoder.

    The FAISS index is FIRST's with the vectors of SECOND added: give the larger one first.
    """
    from ragengine import merge_indexes

    force = may_replace(index, force)
    with progress_bars() as progress:
        manifest = merge_indexes(first, second, index, force=force, threads=threads, progress=progress)
    print_result(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
@click.argument("shards_folder", type=click.Path(), metavar="OUT")
@click.option("--shards", required=True, metavar="N", type=click.IntRange(1), help="How many shards.")
@force_option
@threads_option
def shard(index: str, shards_folder: str, shards: int, force: bool, threads: int | None) -> None:
    """Divide INDEX into shards in the folder OUT, which is searched in its place.

    They find together the documents that INDEX finds, with the same scores.
    """
    from ragengine import shard_index

    force = may_replace(shards_folder, force)
    with progress_bars() as progress:
        manifest = shard_index(
            index, shards_folder, shards=shards, force=force, threads=threads, progress=progress
        )
    print_manifest(shards_folder, manifest)


@index.command()
@click.argument("shards_folder", type=click.Path(), metavar="SHARDS")
@click.argument("addresses", nargs=-1, required=True, metavar="NUMBER=URL[,URL...]...")
def addresses(shards_folder: str, addresses: tuple[str, ...]) -> None:
    """Write which servers have each shard of the index in SHARDS: 0=http://a:8000,http://b:8000.

    They run `ragengine serve --shard`, each with the whole shard.  NUMBER= takes its addresses away.
    """
    from ragengine.indexing.shard_addresses import set_shard_addresses

    given: dict[int, list[str]] = {}
    for text in addresses:
        number, equals, urls = text.partition("=")
        if not equals or not number.isdecimal():
            raise click.BadParameter(f"{short_repr(text)} is not NUMBER=URL[,URL...].")
        given[int(number)] = [url for url in urls.split(",") if url]
    manifest = set_shard_addresses(shards_folder, given)
    for place, entry in enumerate(manifest.shards):
        echo(f"{place}: {', '.join(entry.addresses) or entry.folder or 'no passages'}")


@index.command()
@click.argument("index", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def info(index: str, as_json: bool) -> None:
    """Describe INDEX."""
    from ragengine.retrieval.sharding.manifest import read_index_manifest

    manifest = read_index_manifest(index)
    if as_json:
        print_json(manifest.content, indent=2)
    else:
        print_manifest(index, manifest)


@index.command()
@click.argument("index", type=click.Path())
def verify(index: str) -> None:
    """Check INDEX: hashes, counts, vectors, that FAISS holds what is stored, and the recall again."""
    from ragengine import verify_index

    with progress_bars() as progress:
        manifest = verify_index(index, progress=progress)
    echo(f"{index} is whole: {manifest.count} passages of {manifest.dimension} dimensions.")
