"""The files of a folder that somebody wrote documents into, and which of them are left out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragengine.errors import PassagesError
from ragengine.messages import log, shown
from ragengine.storage.foreign_files import shown_path, why

_SHOWN = 5


@dataclass(frozen=True)
class LeftOut:
    """A file of a folder that is not read; ``reason`` is empty where its kind is not supported."""

    path: Path
    reason: str = ""


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders, sorted by path.

    Hidden files and folders are skipped, and links to folders are not followed.
    """
    files = []

    def refuse(reason: OSError) -> None:
        raise PassagesError(f"{shown_path(reason.filename)} cannot be read: {why(reason)}.") from reason

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def say_left_out(folder: Path, left_out: Sequence[LeftOut], *, strict: bool) -> None:
    """Say which files of ``folder`` are left out; where that is ``strict``, it is an error."""
    if not left_out:
        return
    said = f"{shown_path(folder)}: {count_left_out(folder, left_out)}"
    if strict:
        raise PassagesError(
            f"{said}; remove what is no passage, or read the folder without strict (--strict)."
        )
    log.warning("%s.", said)


def count_left_out(folder: Path, left_out: Sequence[LeftOut]) -> str:
    """``3 files left out: a.csv (no column 'text'), b.png, c.zip``."""
    names = [
        shown(one.path.relative_to(folder).as_posix())[:100] + (f" ({one.reason})" if one.reason else "")
        for one in left_out[:_SHOWN]
    ]
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return f"{len(left_out)} {'file' if len(left_out) == 1 else 'files'} left out: {', '.join(names)}{more}"
