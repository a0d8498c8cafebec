"""Folders that are whole or not there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ragengine.durable import explained, put_in_place
from ragengine.errors import InputError


@contextlib.contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``target`` when the block ends well.

    Raises :class:`InputError` where it cannot be written.
    """
    workspace = target.with_name(f".{target.name}.writing")
    try:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        yield workspace
        put_in_place(workspace, target)
    except OSError as reason:
        raise InputError(f"{target} cannot be written: {explained(reason)}.") from reason
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
