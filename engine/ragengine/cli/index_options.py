"""Options and output that the index commands share."""

from typing import TYPE_CHECKING

import click

from ragengine.cli.index_table import print_manifest
from ragengine.cli.output import echo

if TYPE_CHECKING:
    from ragengine import IndexManifest

bundle_option = click.option(
    "--bundle", required=True, type=click.Path(), help="The bundle whose passage encoder is used."
)

embeddings_option = click.option(
    "--embeddings",
    type=click.Path(),
    metavar="FILE.npy",
    help="Vectors of the passages, float32 [passages, E], in file order, instead of encoding them.",
)

recall_option = click.option(
    "--recall",
    metavar="R",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall@5 to reach with an approximate index.",
)

queries_option = click.option(
    "--queries",
    type=click.Path(),
    metavar="FILE.npy",
    help="Question vectors, float32 [Q, E], to measure the recall with, instead of passages.",
)

batch_tokens_option = click.option(
    "--batch-tokens",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens the encoder reads at once; on a GPU 16384 and more.",
)

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads.  [default: all cores]"
)


def print_result(index: str, manifest: "IndexManifest") -> None:
    """Print what was written, and whether its recall is less than was asked for."""
    print_manifest(index, manifest)
    tuning = manifest.tuning
    if tuning is not None and not manifest.recall_reached:
        echo(
            f"The recall@{tuning.n_docs} is {manifest.recall:.3f}, below the {tuning.target} asked for; "
            "a factory that keeps more of each vector, or Flat, reaches it.",
            err=True,
        )
