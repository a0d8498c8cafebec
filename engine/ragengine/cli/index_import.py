"""``ragengine index import``: an index that another program made."""

import click

from ragengine.cli.common import force_option, may_replace
from ragengine.cli.index_options import (
    bundle_option,
    field_options,
    print_result,
    queries_option,
    recall_option,
    threads_option,
)
from ragengine.cli.index_progress import progress_bars
from ragengine.cli.output import echo


@click.command("import")
@click.argument("source", type=click.Path())
@click.argument("index", type=click.Path())
@bundle_option
@click.option("--faiss", type=click.Path(), metavar="FILE", help="The FAISS file of SOURCE.")
@click.option(
    "--embeddings",
    type=click.Path(),
    metavar="FILE.npy",
    help="Vectors of the passages, float32, float16 or bfloat16 [passages, E], "
    "where the FAISS file has only codes of them.",
)
@click.option(
    "--ids",
    type=click.Path(),
    metavar="FILE",
    help="Passage ids in the order of the FAISS file (a JSON list, or one a line), where it is not SOURCE's.",
)
@field_options
@click.option(
    "--factory",
    metavar="STR",
    help="Build this FAISS index.  [default: keep one for inner products, else as index build]",
)
@recall_option
@queries_option
@force_option
@threads_option
def import_command(
    source: str,
    index: str,
    bundle: str,
    faiss: str | None,
    embeddings: str | None,
    ids: str | None,
    id_field: str | None,
    title_field: str | None,
    text_field: str | None,
    factory: str | None,
    recall: float,
    queries: str | None,
    force: bool,
    threads: int | None,
) -> None:
    """Import SOURCE, passages with a FAISS file, as INDEX.

    SOURCE is a datasets folder, a .tsv (DPR's psgs_w100.tsv) or a .jsonl, or a folder of
    RagRetriever.save_pretrained, which has the FAISS file, too.  Row i of the FAISS file is passage i of
    SOURCE.  Pickles (DPR's index_meta.dpr) are never read: give --ids where the order is another.
    """
    from ragengine import import_index

    force = may_replace(index, force)
    with progress_bars() as progress:
        manifest = import_index(
            source,
            index,
            bundle=bundle,
            faiss=faiss,
            embeddings=embeddings,
            ids=ids,
            id_field=id_field,
            title_field=title_field,
            text_field=text_field,
            queries=queries,
            factory=factory,
            recall=recall,
            force=force,
            threads=threads,
            progress=progress,
            on_plan=lambda plan: echo(f"{plan.factory}: {plan.reason}.", err=True),
        )
    print_result(index, manifest)
