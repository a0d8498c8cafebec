"""Folders that are whole or not there: atomic writing, and the manifest that lists every file.

A bundle and an index are folders with a ``manifest.json``.  They are written into a hidden sibling and
renamed, so a process killed at any point leaves the old folder whole.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ragengine.errors import RagEngineError
from ragengine.schema import parse

try:
    import fcntl
except ModuleNotFoundError:  # not a POSIX system: two writers of one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"
OUTPUT = "output"
"""The part of a workspace of :func:`resumable_folder` that becomes the folder."""
T = TypeVar("T")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 (hex) of one file of a folder."""

    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_folder(target: Path, format_name: str, error: type[RagEngineError]) -> Iterator[Path]:
    """Yield an empty sibling folder that takes the place of ``target`` when the block ends well.

    A ``target`` that exists is replaced only if it holds a manifest of ``format_name``: a mistyped
    path must never cost somebody a folder.  Leftovers of killed runs are removed; a folder that another
    process is writing now is refused.
    """
    with _staging(target, format_name, error) as (target, staging):
        _empty(staging)
        try:
            yield staging
            _put_in_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def resumable_folder(
    target: Path,
    format_name: str,
    error: type[RagEngineError],
    *,
    resume: bool,
    hopeless: tuple[type[BaseException], ...],
) -> Iterator[Path]:
    """Yield a sibling workspace whose subfolder ``OUTPUT`` takes the place of ``target`` at the end.

    The workspace outlives a kill, an interrupt and every exception but the ``hopeless`` ones, and with
    ``resume`` the next call yields it as it was left.  Without ``resume`` it begins empty.  Otherwise as
    :func:`replaced_folder`.
    """
    with _staging(target, format_name, error) as (target, staging):
        if not resume:
            _empty(staging)
        try:
            yield staging
            if (staging / OUTPUT).exists():  # else a run was killed after this very step
                _put_in_place(staging / OUTPUT, target)
        except hopeless:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _staging(target: Path, format_name: str, error: type[RagEngineError]) -> Iterator[tuple[Path, Path]]:
    """Repair what a kill between two renames left, lock the staging folder, and say what went wrong."""
    target = Path(os.path.realpath(target))  # behind a link, the folder is replaced, not the link
    staging = target.parent / f".{target.name}.writing"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        retired = _retired(target)
        if retired.exists():
            # A run was killed between the two renames of `_put_in_place`: the old folder is whole, here.
            shutil.rmtree(retired) if target.exists() else os.rename(retired, target)
        if target.exists() and not _is_ours(target, format_name):
            raise error(
                f"{target} exists and is not a {format_name}; choose another path or remove it first."
            )
        staging.mkdir(exist_ok=True)
    except OSError as reason:
        raise error(f"{target} cannot be written: {reason.strerror or reason}.") from reason
    with _locked(staging, target, error):
        try:
            yield target, staging
        except OSError as reason:
            raise error(
                f"{target} cannot be written: {reason.strerror or reason}; nothing was changed."
            ) from reason


@contextlib.contextmanager
def _locked(staging: Path, target: Path, error: type[RagEngineError]) -> Iterator[None]:
    """Hold the staging folder for this process; the lock goes with the process, however it ends."""
    if fcntl is None:
        yield
        return
    handle = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            raise error(f"{target} is being written by another process; wait for it or stop it.") from reason
        yield
    finally:
        os.close(handle)


def _empty(folder: Path) -> None:
    """Remove what is in ``folder``; the folder itself stays, and its lock with it."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _put_in_place(source: Path, target: Path) -> None:
    retired = _retired(target)
    if target.exists():
        os.rename(target, retired)
    try:
        os.rename(source, target)
    except OSError:
        if retired.exists():
            os.rename(retired, target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _retired(target: Path) -> Path:
    return target.parent / f".{target.name}.retired"


def _is_ours(folder: Path, format_name: str) -> bool:
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == format_name


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``manifest.json`` with ``content`` and a ``files`` entry for every other file in ``folder``."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps({**content, "files": files}, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, "utf-8")


def read_manifest(
    folder: Path,
    cls: type[T],
    format_name: str,
    version: int,
    error: type[RagEngineError],
    *,
    oldest: int = 1,
) -> T:
    """Read and check ``manifest.json`` of a folder as the dataclass ``cls``.

    Raises ``error`` when the folder is not there, is of another format, of a newer version or one before
    ``oldest``, or when fields are missing or of the wrong type (all of them named at once).
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise error(f"{folder} is not a folder; a {format_name} was expected there.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise error(f"{folder} has no {MANIFEST}, so it is not a {format_name}.") from None
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{path} cannot be read: {reason}.") from reason
    if not isinstance(content, dict) or content.get("format") != format_name:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise error(f"{path} says format {found!r}; {format_name!r} was expected.")
    found = content.get("format_version")
    if type(found) is not int or found < 1:
        raise error(f"{path} has format_version {found!r}; a whole number from 1 to {version} was expected.")
    if found > version:
        raise error(
            f"{path} has format version {found}, this ragengine reads up to {version}; "
            "upgrade ragengine or write the folder again with this version."
        )
    if found < oldest:
        raise error(
            f"{path} has format version {found}, this ragengine reads {oldest} to {version}; "
            "write the folder again with this version."
        )
    faults: list[str] = []
    manifest = parse(cls, content, faults)
    if manifest is None:
        raise error(f"{path} is damaged: {'; '.join(faults)}.")
    return manifest


def check_files(
    folder: Path, files: dict[str, FileEntry], error: type[RagEngineError], *, hashes: bool
) -> None:
    """Check that every listed file is there, inside the folder, with its size and (optionally) its sha256.

    All faults are reported at once, before any library opens a file.
    """
    faults = []
    for name, entry in files.items():
        pure = PurePosixPath(name)
        path = folder / pure
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
            faults.append(f"{name!r} leaves the folder")
            continue
        try:
            if path.is_symlink() or not path.is_file():
                faults.append(f"{name} is missing")
            elif path.stat().st_size != entry.size:
                faults.append(f"{name} has {path.stat().st_size} bytes instead of {entry.size}")
            elif hashes and sha256_of(path) != entry.sha256:
                faults.append(f"{name} has another sha256 than the manifest")
        except OSError as reason:
            faults.append(f"{name} cannot be read ({reason.strerror or reason})")
        except UnicodeEncodeError:
            faults.append(f"{name!a} is not a file name")
    if faults:
        raise error(f"{folder} is damaged: {'; '.join(faults)}; write or copy it again.")
