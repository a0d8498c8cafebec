"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def device_options(command: F) -> F:
    """``--device`` and ``--threads``."""
    device = click.Choice(["auto", "cpu", "cuda"])
    command = click.option(
        "--threads", type=click.IntRange(1), help="Threads a graph may use [default: all cores]."
    )(command)
    return click.option("--device", type=device, default="auto", show_default=True, help="Where graphs run.")(
        command
    )


def generation_options(command: F) -> F:
    """Generation options by their names in :class:`ragengine.GenerationOptions`."""
    kinds = click.Choice(["token", "sequence"])
    for option in (
        click.option("--marginalize", type=kinds, help="RAG-Token or RAG-Sequence [default: the model's]."),
        click.option("--max-length", type=int, help="Longest answer in tokens [default: the model's]."),
        click.option("--num-beams", type=int, help="Beams; 1 is greedy search [default: the model's]."),
        click.option("--n-docs", type=int, help="Documents read per question [default: the model's]."),
    ):
        command = option(command)
    return command


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in settings.items() if value is not None}
