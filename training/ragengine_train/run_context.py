"""What surrounds a run: its folder is held, and torch is set as it needs it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from ragengine.errors import InputError
from ragengine.storage.atomic import explained, held_folder


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hold(output: Path, held: contextlib.ExitStack) -> None:
    """Make the folder of a run and keep other runs out of it until ``held`` ends.

    Raises :class:`InputError` where that fails.
    """
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        held.enter_context(held_folder(output))


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Raise :class:`InputError` where something inside, or the Trainer, cannot write."""
    try:
        yield
    except OSError as reason:
        raise InputError(f"{output} cannot be written: {explained(reason)}.") from reason
