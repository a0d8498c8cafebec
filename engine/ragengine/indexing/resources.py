"""Is there room? Disk and memory are looked at before hours are spent."""

import shutil
from pathlib import Path

from ragengine.errors import IndexFolderError
from ragengine.runtime.memory import available_memory


def check_disk(folder: Path, needed: int) -> None:
    """Raise :class:`IndexFolderError` unless the disk of ``folder`` has ``needed`` bytes left."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if _exists(path))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise IndexFolderError(
            f"Building {folder} needs about {_gib(needed)} of disk, {there} has {_gib(free)} free; "
            "make room or write the index to another disk."
        )


def check_memory(needed: int, factory: str) -> None:
    """Raise :class:`IndexFolderError` unless ``needed`` bytes of memory can be had, where that is known."""
    free = available_memory()
    if free is not None and needed > free:
        raise IndexFolderError(
            f"Building {factory!r} needs up to {_gib(needed)} of memory, {_gib(free)} can be had here; "
            "choose a factory that keeps fewer bytes a vector, or a machine with more."
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long, or a folder above may not be read: whoever writes there says so
        return False


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
