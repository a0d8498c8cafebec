"""Folders that are whole or not there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ragengine.errors import InputError
from ragengine.storage.atomic import explained, put_in_place


def remove(folder: Path) -> None:
    """Remove a folder if there is one, in one step: half of it would pass for a finished one.

    Raises :class:`InputError` where it cannot be removed.
    """
    workspace = _workspace(folder)
    try:
        shutil.rmtree(workspace, ignore_errors=True)
        if folder.is_dir():
            folder.rename(workspace)
            shutil.rmtree(workspace)
    except OSError as reason:
        raise InputError(f"{folder} cannot be removed: {explained(reason)}.") from reason


@contextlib.contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``target`` when the block ends well.

    Raises :class:`InputError` where it cannot be written.
    """
    workspace, retired = _workspace(target), target.with_name(f".{target.name}.retired")
    try:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        yield workspace
        put_in_place(workspace, target, retired)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as reason:
        raise InputError(f"{target} cannot be written: {explained(reason)}.") from reason
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _workspace(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.writing")
