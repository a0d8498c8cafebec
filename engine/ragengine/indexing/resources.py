"""Whether disk and memory suffice, checked before hours are spent."""

import shutil
from pathlib import Path

from ragengine.errors import IndexFolderError
from ragengine.indexing.plan import disk_needed, memory_needed
from ragengine.indexing.training import empty_faiss_index
from ragengine.runtime.memory import available_memory


def check_room(index: Path, factory: str, count: int, dimension: int, *, texts: int, memory: int = 0) -> None:
    """Check that there is room to write ``index``: ``count`` passages with vectors of ``dimension`` numbers.

    ``texts`` are the bytes of the passages, and ``memory`` those that something else takes meanwhile.  Raises
    :class:`IndexFolderError`, and :class:`InputError` for a ``factory`` that cannot be used.
    """
    empty = empty_faiss_index(factory, dimension)
    check_memory(memory_needed(empty, count, dimension) + memory, factory)
    check_disk(index, disk_needed(empty, count, dimension, texts))


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
    """Raise :class:`IndexFolderError` where memory is known to have fewer than ``needed`` bytes left."""
    free = available_memory()
    if free is not None and needed > free:
        raise IndexFolderError(
            f"Building {factory!r} needs up to {_gib(needed)} of memory, {_gib(free)} are available here; "
            "choose a factory that keeps fewer bytes a vector, or a machine with more."
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, or a folder above that cannot be read: writing there raises it again
        return False


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
