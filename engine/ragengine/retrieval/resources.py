"""Is there room? Disk and memory are looked at before hours are spent."""

import shutil
from pathlib import Path

from ragengine.errors import IndexFolderError, PassagesError
from ragengine.retrieval.passages import passages_kind, utf8_lines

_SAMPLED_BYTES = 1 << 20
_WORD_BYTES = 6  # of English text, with its space
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


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


def available_memory() -> int | None:
    """Bytes that this process may still take: the machine's, or its container's if that is less."""
    limits = []
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_CGROUP / "memory.current").read_text())
            cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
            limits.append(int(limit) - used + int(cache.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def passages_bytes(path: Path) -> int:
    """The size of the files that the passages at ``path`` are read from, which bounds that of their texts."""
    return sum(file.stat().st_size for file in source_files(path))


def source_files(path: Path) -> list[Path]:
    """The files that the passages at ``path`` are read from, in order."""
    kind = passages_kind(path)
    if not path.is_dir():
        return [path]
    if kind == "text":
        from ragengine.retrieval.splitting import text_files

        return text_files(path)
    from ragengine.retrieval.arrow import data_files

    return data_files(path)


def estimate_count(path: Path) -> int:
    """About how many passages there are: exact for a dataset, by the first megabyte of lines of a file."""
    kind = passages_kind(path)
    if kind == "dataset":
        from ragengine.retrieval.arrow import count_rows

        return count_rows(path)
    size = passages_bytes(path)
    if kind == "text":
        from ragengine.retrieval.splitting import WORDS_PER_PASSAGE

        return size // (WORDS_PER_PASSAGE * _WORD_BYTES) + len(source_files(path))
    lines = read = 0
    try:
        for line in utf8_lines(path):
            lines, read = lines + 1, read + len(line.encode())
            if read >= _SAMPLED_BYTES:
                break
    except PassagesError:
        pass  # reading all of it will say so, with its line
    return lines * size // max(read, 1)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long, or a folder above may not be read: whoever writes there says so
        return False


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
