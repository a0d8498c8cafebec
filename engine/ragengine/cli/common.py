"""Options and a progress bar that several commands share."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ragengine.messages import short_repr, shown
from ragengine.storage.ownership import MANIFEST, SHARDS

if TYPE_CHECKING:
    from ragengine.runtime.progress import Report

F = TypeVar("F", bound=Callable[..., Any])


def folder_options(command: F) -> F:
    """``--bundle`` and ``--index``, which stand for the arguments BUNDLE and INDEX; see :func:`placed`."""
    folder = click.Path(path_type=Path)
    command = click.option("--index", "index_folder", type=folder, help="INDEX, as an option.")(command)
    return click.option("--bundle", "bundle_folder", type=folder, help="BUNDLE, as an option.")(command)


def placed(
    arguments: Sequence[str | None], bundle: Path | None, index: Path | None
) -> tuple[Path | None, Path | None, list[str]]:
    """The bundle, the index, and the other arguments, in their order.

    Args:
        arguments: BUNDLE, INDEX and the others as they were typed; what was given as an option is not
            among them, so that the others move up.
        bundle: ``--bundle``.
        index: ``--index``.
    """
    words = [word for word in arguments if word is not None]
    if bundle is None and words:
        bundle = Path(words.pop(0))
    if index is None and words:
        index = Path(words.pop(0))
    return bundle, index, words


force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")


def may_replace(output: str | Path, force: bool) -> bool:
    """Whether a folder that an earlier run wrote may be replaced: ``--force``, or who sits there says so."""
    try:
        there = any((Path(output) / name).is_file() for name in (MANIFEST, SHARDS))
    except (OSError, ValueError):  # no path at all: the writer says so
        there = False
    if force or not there:
        return force
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm(f"{shown(str(output))} exists. Replace it?", err=True)


def device_options(command: F) -> F:
    """``--device``, ``--search-device`` and ``--threads``."""
    device = click.Choice(["auto", "cpu", "cuda"])
    command = click.option(
        "--search-device", type=device, help="Where the index is searched [default: as --device]."
    )(command)
    command = click.option(
        "--threads", type=click.IntRange(1), help="Threads a graph may use [default: all cores]."
    )(command)
    return click.option("--device", type=device, default="auto", show_default=True, help="Where graphs run.")(
        command
    )


def remote_options(command: F) -> F:
    """``--remote-shards`` and how they are asked; the command gets them as ``remote`` of its loading."""

    @functools.wraps(command)
    def with_remote(
        *arguments: Any, remote_shards: bool, shard_timeout: float, shard_key_file: Path | None,
        shard_ca_file: Path | None, **others: Any,
    ) -> Any:  # fmt: skip
        from ragengine.retrieval.sharding.remote.options import RemoteOptions

        options = RemoteOptions(timeout=shard_timeout, key_file=shard_key_file, ca_file=shard_ca_file)
        remote = options if remote_shards else None
        return command(*arguments, remote=remote, **others)

    decorated: Any = with_remote
    for option in (
        click.option("--shard-key-file", type=click.Path(path_type=Path), help="File with the servers' key."),
        click.option(
            "--shard-ca-file",
            type=click.Path(path_type=Path),
            help="Certificates that vouch for servers at https:// [default: the system's].",
        ),
        click.option(
            "--shard-timeout",
            type=float,
            default=5.0,
            show_default=True,
            help="Seconds that a shard may take.",
        ),
        click.option(
            "--remote-shards", is_flag=True, help="Ask the servers that the index's shards.json names."
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)


def verify_option(command: F) -> F:
    """``--verify``: how the files of bundle and index are checked before use."""
    return click.option(
        "--verify",
        type=click.Choice(["sha256", "size"]),
        default="sha256",
        show_default=True,
        help="Check every byte of bundle and index against their manifests, or only sizes, which is faster.",
    )(command)


def generation_options(command: F) -> F:
    """Generation options, named as in :class:`ragengine.GenerationOptions`."""
    kinds = click.Choice(["token", "sequence"])
    searches = click.Choice(["thorough", "fast", "joint"])
    for option in (
        click.option(
            "--set",
            "others",
            multiple=True,
            metavar="NAME=VALUE",
            callback=name_value_pairs,
            help="Any other generation option and its value as JSON (min_length=3); may be repeated.",
        ),
        click.option("--search", type=searches, help="How RAG-Sequence searches [default: the model's]."),
        click.option("--marginalize", type=kinds, help="RAG-Token or RAG-Sequence [default: the model's]."),
        click.option("--max-length", type=int, help="Longest answer in tokens [default: the model's]."),
        click.option("--num-beams", type=int, help="Beams; 1 is greedy search [default: the model's]."),
        click.option("--n-docs", type=int, help="Documents read per question [default: the model's]."),
    ):
        command = option(command)
    return command


def reading_options(command: F) -> F:
    """``--doc-pruning`` and ``--adaptive-reading``: which of the documents are read."""
    command = click.option(
        "--adaptive-reading",
        flag_value=True,
        default=None,
        type=bool,
        help="Read a document only while it could change a token (greedy RAG-Token).",
    )(command)
    return click.option(
        "--doc-pruning", type=float, help="Do not read documents whose prior p(z|x) is less than this."
    )(command)


def filter_option(command: F) -> F:
    """``--filter``: only passages whose metadata has certain values."""
    return click.option(
        "--filter",
        "filter",
        multiple=True,
        metavar="FIELD=VALUE",
        callback=_filter_pairs,
        help="Search only passages whose metadata has this value; repeated for one field, any of its values.",
    )(command)


def _filter_pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, list[str]] | None:
    """The values of each field; None where there is no filter."""
    fields: dict[str, list[str]] = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{short_repr(pair)} is not FIELD=VALUE.")
        fields.setdefault(name, []).append(value)
    return fields or None


def given(*, others: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The generation options that were given on the command line; an own flag wins over ``--set``."""
    return others | {name: value for name, value in settings.items() if value is not None}


def name_value_pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that is not JSON is a string."""
    pairs = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{short_repr(pair)} is not NAME=VALUE.")
        try:
            pairs[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            pairs[name.replace("-", "_")] = value
        except RecursionError:
            raise click.BadParameter(f"{short_repr(pair)} is nested too deeply.") from None
    return pairs


@contextlib.contextmanager
def progress_bar(description: str) -> "Iterator[Report]":
    """A bar on stderr while the block runs; yields what moves it, ``report(done, total)``."""
    from rich.progress import Progress

    from ragengine.cli.console import SafeConsole

    console = SafeConsole(stderr=True)
    # Elsewhere than on a terminal it would leave nothing but an empty line.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
