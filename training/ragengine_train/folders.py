"""Folders that are whole or not there."""

import contextlib
import os
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


def link_folder(source: Path, target: Path) -> None:
    """Give the files of a folder, which nobody changes, a second place: by links, else by copies.

    Raises :class:`InputError` where it cannot be written.
    """
    with replaced(target) as folder:
        shutil.copytree(source, folder, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


def _workspace(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.writing")
