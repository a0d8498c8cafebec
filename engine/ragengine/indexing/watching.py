"""Noticing that files changed, by their sizes and times."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ragengine.corpus.folder import files_below
from ragengine.errors import PassagesError

_Snapshot: TypeAlias = tuple[object, ...]


def file_changes(passages: str | Path | Sequence[str | Path], every: float) -> Iterator[None]:
    """Yield at once, and then each time files were added, changed or removed.

    Files that are being written are waited for: nothing has changed for ``every`` seconds, at which the files
    are looked at, before it yields.  Ends only when the caller stops.
    """
    seen: _Snapshot | None = None
    while True:
        before, now = None, _snapshot(passages)
        while now != before:
            if seen is not None:
                time.sleep(every)
            before, now = now, _snapshot(passages)
        if now != seen:
            seen = now
            yield


def _snapshot(passages: str | Path | Sequence[str | Path]) -> _Snapshot:
    """What would differ if a file had changed; an error where one cannot be looked at now."""
    paths = [passages] if isinstance(passages, str | Path) else passages
    found: list[object] = []
    try:
        for path in map(Path, paths):
            for file in files_below(path) if path.is_dir() else [path]:
                status = file.stat()
                found.append((file, status.st_size, status.st_mtime_ns, status.st_ino))
    except (PassagesError, OSError) as error:
        found.append(str(error))
    return tuple(found)
