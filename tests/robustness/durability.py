"""The promise about power failures, checked on recorded calls: what a rename publishes is on disk by then."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from tests.robustness.file_calls import Call

_CHECKPOINT = "state.json"


def broken_promises(calls: Iterable[Call]) -> list[str]:
    """A sentence for each rename that a power failure may leave half done.

    A rename publishes a file, or a folder with all that is in it; that of a build's checkpoint publishes all
    that is beside it, since a resumed build relies on that.  The content of the files and the names in the
    folders are synced before it, and the folder of the new name before the next rename and before the end.
    """
    content: set[str] = set()  # files whose content is not on disk
    names: set[str] = set()  # folders with entries that are not on disk
    waiting: dict[str, str] = {}  # folders with an entry of a rename that is not on disk, and that entry
    broken: list[str] = []
    for name, path, new_path in calls:
        folder = str(PurePosixPath(path).parent)
        if name in ("truncate", "write"):
            content.add(path)
        if name in ("create", "mkdir", "link"):
            names.add(str(PurePosixPath(new_path).parent) if new_path else folder)
        if name in ("sync", "remove"):
            content.discard(path)
            names.discard(path)
            waiting.pop(path, None)
        if name in ("rename", "exchange"):
            scope = folder if PurePosixPath(new_path).name == _CHECKPOINT else path
            late = {each for each in content if _inside(each, scope)}
            late |= {each for each in names if _inside(each, scope)} - {folder}
            broken += [f"{new_path} takes its place before {each} is synced" for each in sorted(late)]
            broken += [
                f"{new_path} takes its place before the name of {each} is synced" for each in waiting.values()
            ]
            content -= late
            waiting = {str(PurePosixPath(new_path).parent): new_path}
    return broken + [f"the name of {each} is not synced at the end" for each in waiting.values()]


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
