"""Files that a new folder has in common with an old one."""

import os
import shutil
from pathlib import Path


def linked(source: Path, target: Path) -> None:
    """Let ``target`` be the file ``source`` under another name; a copy of it where the disk knows no links.

    Only for files that nobody writes into, because both would change: those of an index are replaced whole.
    """
    try:
        os.link(source, target)
    except OSError:  # another disk, one without links, or a file of another user
        shutil.copyfile(source, target)
