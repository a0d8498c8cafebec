"""Whose a folder is: what may be replaced or removed, so that a mistyped path costs nobody a file."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ragengine.errors import RagEngineError
from ragengine.storage.foreign_files import shown_path
from ragengine.storage.strict_json import read_json

MANIFEST = "manifest.json"
SHARDS = "shards.json"
"""The manifest of an index in shards."""
TRAINING = "training.json"
"""The manifest of what was trained for shards that are built apart; it may stay beside that of the shards."""
QUANTIZER = "quantizer.faiss"
"""A FAISS index that was trained and holds no vectors."""
CALIBRATION = "calibration.json"
"""A file that an index folder may have beside those that its manifest lists; it goes where the index goes."""
_CALIBRATION = (CALIBRATION, f".{CALIBRATION}.writing")
_OPTIONAL = {
    "ragengine-index": _CALIBRATION,
    "ragengine-shards": (*_CALIBRATION, TRAINING, QUANTIZER),
}
_NAMES = {"ragengine-shards": SHARDS, "ragengine-training": TRAINING}
MARK = ".ragengine"
"""The file that says that a workspace is ragengine's."""


@contextlib.contextmanager
def marked(workspace: Path, error: type[RagEngineError]) -> Iterator[None]:
    """Mark a workspace as ragengine's, and refuse one that has no mark and is not empty.

    The mark is made first and removed last, so that whatever a kill leaves has it.
    """
    mark = workspace / MARK
    if any(workspace.iterdir()) and not mark.is_file():
        raise error(
            f"{workspace} is not a folder that ragengine made, and writing beside it would empty it; "
            "move it away."
        )
    mark.touch()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a mark that stays says whose the folder is
            if list(workspace.iterdir()) == [mark]:
                mark.unlink()


def check_replaceable(
    target: Path, format_name: str, error: type[RagEngineError], *, force: bool = True
) -> None:
    """Raise ``error`` if a new folder must not take the place of ``target``; :class:`OSError` if it cannot.

    It may if nothing is there, an empty folder, or, with ``force``, one of ``format_name`` with nothing else
    in it.
    """
    if not os.path.lexists(target):
        return
    if os.path.ismount(target):
        raise error(f"{target} is a mount point, which cannot be replaced; give a path inside it.")
    if _own_names(target, format_name) is None:
        raise error(f"{target} exists and is not a {format_name}; choose another path or remove it first.")
    if not os.access(target, os.W_OK):  # moving a folder needs it; checked before hours of work
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    if Path.cwd().is_relative_to(target):
        raise error(f"{target} is or holds the current folder, so it cannot be replaced; run this elsewhere.")
    check_nothing_foreign(target, target, format_name, error)
    if not force and any(target.iterdir()):
        raise error(f"{target} exists; give --force to replace it (in Python force=True), or another path.")


def check_nothing_foreign(folder: Path, shown: Path, format_name: str, error: type[RagEngineError]) -> None:
    """Refuse to remove ``folder`` if it has files or folders that its manifest does not list."""
    ours = _own_names(folder, format_name) or frozenset()
    there = {path.relative_to(folder) for path in folder.rglob("*")}
    inner = {path for path in there if path.as_posix() not in ours}
    foreign = sorted(path.as_posix() for path in inner - {path.parent for path in inner})
    if foreign:
        names = ", ".join(map(shown_path, foreign[:3])) + " and more" * (len(foreign) > 3)
        raise error(
            f"{shown} holds {names} beside the {format_name}, which would be lost; move them away or choose "
            "another path."
        )


def manifest_name(format_name: str) -> str:
    """The file that makes a folder one of ``format_name``."""
    return _NAMES.get(format_name, MANIFEST)


def _own_names(folder: Path, format_name: str) -> frozenset[str] | None:
    """The files and folders that a folder of ``format_name`` has by its manifest; None where it is none."""
    if folder.is_dir() and not any(folder.iterdir()):
        return frozenset()
    try:
        content = read_json(folder / manifest_name(format_name))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != format_name:
        return None
    listed = content.get("files")
    names = {
        manifest_name(format_name),
        *_OPTIONAL.get(format_name, ()),
        *(listed if isinstance(listed, dict) else ()),
    }
    shards = content.get("shards") if format_name == "ragengine-shards" else None
    for shard in shards if isinstance(shards, list) else ():
        name = shard.get("folder") if isinstance(shard, dict) else None
        if isinstance(name, str) and PurePosixPath(name).name == name:
            inner = _own_names(folder / name, "ragengine-index") or ()
            names |= {name, *(f"{name}/{own}" for own in inner)}
    return frozenset(str(part) for name in names for part in (name, *PurePosixPath(name).parents))
