"""Options and output that the index commands share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragengine.cli.index_table import print_manifest
from ragengine.cli.output import echo

if TYPE_CHECKING:
    from ragengine import IndexManifest

F = TypeVar("F", bound=Callable[..., Any])

bundle_option = click.option(
    "--bundle", required=True, type=click.Path(), help="The bundle whose passage encoder is used."
)

embeddings_option = click.option(
    "--embeddings",
    type=click.Path(),
    metavar="FILE.npy",
    help="Vectors of the passages, float32, float16 or bfloat16 [passages, E], in file order, instead of "
    "encoding them.",
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
    help="Question vectors, of the same types [Q, E], to measure the recall with, instead of passages.",
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


_FIELDS = {
    "id": "[default: id, else _id]",
    "title": "[default: title]",
    "text": "[default: text]",
}


def field_options(command: F) -> F:
    """``--id-field``, ``--title-field`` and ``--text-field``."""
    for name, default in reversed(_FIELDS.items()):
        command = click.option(
            f"--{name}-field", metavar="NAME", help=f"Column or JSON field of the {name}s.  {default}"
        )(command)
    return command


def reading_options(command: F) -> F:
    """How passages are read: :func:`field_options`, ``--passage-words``, ``--overlap`` and ``--strict``."""
    for option in (
        click.option(
            "--strict",
            is_flag=True,
            help="Refuse a folder of which a file would be left out, and a document without text.",
        ),
        click.option(
            "--overlap",
            metavar="N",
            default=0,
            show_default=True,
            type=click.IntRange(min=0),
            help="Words that a passage repeats of the one before it in the same text.",
        ),
        click.option(
            "--passage-words",
            metavar="N",
            type=click.IntRange(min=1),
            help="Split texts into passages of N words.  [default: 100 for documents; rows are not split]",
        ),
    ):
        command = option(command)
    return field_options(command)


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
