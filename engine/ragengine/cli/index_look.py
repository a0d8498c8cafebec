"""``ragengine index list|show|search``: look at the passages of an index."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragengine.cli.common import (
    device_options,
    filter_option,
    folder_options,
    placed,
    remote_options,
    verify_option,
)
from ragengine.cli.output import echo, print_json

if TYPE_CHECKING:
    from ragengine.results import Document

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a passage, on one line.")


@click.command("list")
@click.argument("index", type=click.Path())
@filter_option
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="Passages to leave out.")
@click.option("--limit", type=click.IntRange(0), help="Passages to list at most.  [default: all]")
@json_option
def list_command(
    index: str, filter: dict[str, list[str]] | None, start: int, limit: int | None, as_json: bool
) -> None:
    """List the passages of INDEX: id, title and metadata."""
    from ragengine import list_passages

    for document in list_passages(index, filter=filter, start=start, limit=limit):
        if as_json:
            print_json(_passage_json(document))
        else:
            echo("  ".join(part for part in (document.id, document.title, _metadata(document)) if part))


@click.command("show")
@click.argument("index", type=click.Path())
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
def show_command(index: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Show the passages of INDEX with these IDs."""
    from ragengine import show_passages

    for document in show_passages(index, ids):
        if as_json:
            print_json(_passage_json(document))
        else:
            _print_passage(document)


@click.command("search")
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@click.argument("questions", nargs=-1, metavar="QUESTION...")
@folder_options
@click.option("--n-docs", type=click.IntRange(1), help="Passages for each question [default: the model's].")
@filter_option
@click.option("--nprobe", type=click.IntRange(1), help="Inverted lists to search [default: as tuned].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a question, on one line.")
@device_options
@verify_option
@remote_options
def search_command(
    bundle: str | None,
    index: str | None,
    questions: tuple[str, ...],
    bundle_folder: Path | None,
    index_folder: Path | None,
    n_docs: int | None,
    filter: dict[str, list[str]] | None,
    nprobe: int | None,
    as_json: bool,
    **placing: Any,
) -> None:
    """Search INDEX for each QUESTION: passages and their scores, without an answer."""
    model, passages, asked = placed([bundle, index, *questions], bundle_folder, index_folder)
    if model is None or passages is None or not asked:
        raise click.UsageError("Missing argument: BUNDLE INDEX QUESTION... are needed.")
    from ragengine import Retriever

    with Retriever.load(model, passages, **placing) as retriever:
        found = retriever.search(asked, n_docs, filter=filter, nprobe=nprobe)
    for question, documents in zip(asked, found, strict=True):
        if as_json:
            rows = [{**_passage_json(document), "doc_score": document.score} for document in documents]
            print_json({"question": question, "documents": rows})
            continue
        echo(question)
        for number, document in enumerate(documents, 1):
            echo(f"{number:3} {document.score:9.3f}  {document.id}  {document.title}  {document.text}")


def _passage_json(document: "Document") -> dict[str, Any]:
    """A passage as JSON values, as ``ragengine index build`` reads it."""
    return {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }


def _metadata(document: "Document") -> str:
    return " ".join(f"{name}={value}" for name, value in document.metadata.items())


def _print_passage(document: "Document") -> None:
    for name, value in (("id", document.id), ("title", document.title), *document.metadata.items()):
        echo(f"{name}: {value}")
    echo("")
    for line in document.text.splitlines():
        echo(line)
    echo("")
