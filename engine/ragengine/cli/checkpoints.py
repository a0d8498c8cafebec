"""What `ragengine eval --all-checkpoints` evaluates, and how its checkpoints become bundles."""

import contextlib
import io
from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine.evaluation.checkpoints import Candidate, find_candidates, training_indexes


def models_in(folder: Path, bundle: Path | None, index: Path | None, threads: int | None) -> list[Candidate]:
    """The models in ``folder``, and before them BUNDLE with INDEX, where they are given.

    Checkpoints are exported by `ragengine export`, which is in another package and needs its extra.
    """
    indexes = [*([] if index is None else [index]), *training_indexes(folder)]
    if not indexes:
        raise click.UsageError(f"INDEX is needed: {folder} has no folder index.")
    first = None if bundle is None else Candidate(bundle, indexes[0])
    return find_candidates(folder, indexes, _export, first=first, threads=threads)


def _export(checkpoint: Path, bundle: Path) -> None:
    """Run `ragengine export`, whose table of graphs nobody has asked for; its warnings are shown."""
    context = click.get_current_context()
    commands = context.find_root().command
    command = commands.get_command(context, "export") if isinstance(commands, click.Group) else None
    assert command is not None
    echo(f"{checkpoint}: exported to {bundle}", err=True)
    with contextlib.redirect_stdout(io.StringIO()):
        context.invoke(command, paths=(str(checkpoint), str(bundle)))
