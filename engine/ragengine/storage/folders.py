"""Folders with a manifest, which lists every file: written whole or not at all, and checked before use.

A bundle and an index are folders with a ``manifest.json``.  They are written into a hidden sibling and
renamed, so a process that is killed at any point leaves the old folder whole.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from ragengine.errors import InputError, RagEngineError
from ragengine.storage.atomic import (
    explained,
    held_folder,
    keep_private,
    put_in_place,
    replaced_file,
    retired,
)
from ragengine.storage.schema import Hash, Range, join_errors, parse
from ragengine.storage.strict_json import read_json

MANIFEST = "manifest.json"
OUTPUT = "output"
"""The subfolder of a :func:`resumable_folder` that becomes the folder."""
T = TypeVar("T")
Verify: TypeAlias = Literal["sha256", "size"]
"""How the files of a folder are compared with its manifest."""

_FILE_NAME = re.compile(r"{0}(/{0}){{0,7}}".format("[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"))


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 (hexadecimal) of one file of a folder."""

    size: Annotated[int, Range(0, 1 << 62)]
    sha256: Hash


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_folder(target: Path, format_name: str, error: type[RagEngineError]) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` when the block ends without an error.

    An existing ``target`` is replaced only if it is empty, or holds a manifest of ``format_name`` and no
    file that this does not list: a mistyped path must never cost anybody a file.  What killed runs left is
    removed.

    Args:
        target: the folder to write.
        format_name: the ``format`` in its manifest.
        error: the class of the errors that are raised.

    Raises:
        RagEngineError: as ``error``: ``target`` cannot be replaced, or another process is writing it.
    """
    everything = (BaseException,)
    with resumable_folder(target, format_name, error, resume=False, hopeless=everything) as workspace:
        (workspace / OUTPUT).mkdir()
        yield workspace / OUTPUT


@contextlib.contextmanager
def resumable_folder(
    target: Path,
    format_name: str,
    error: type[RagEngineError],
    *,
    resume: bool,
    hopeless: tuple[type[BaseException], ...],
) -> Iterator[Path]:
    """Yield a sibling workspace whose subfolder ``OUTPUT`` replaces ``target`` at the end.

    The workspace outlives a kill, an interrupt and every exception but the ``hopeless`` ones.  With
    ``resume`` it is yielded as the last run left it, else it begins empty.  Otherwise as
    :func:`replaced_folder`.
    """
    with _workspace(target, format_name, error) as (target, workspace):
        try:
            _tidy(workspace, target, resume, error)
            keep_private(target, workspace)
            yield workspace
            if (workspace / OUTPUT).exists():  # else the last run was killed right after replacing
                with replaced_file(workspace / MANIFEST) as file:  # how `_in_place` recognises the new one
                    file.write((workspace / OUTPUT / MANIFEST).read_bytes())
                put_in_place(workspace / OUTPUT, target)
        except BaseException as reason:
            state = "it is the new one" if _in_place(workspace, target) else "nothing was changed"
            if isinstance(reason, hopeless):
                shutil.rmtree(workspace, ignore_errors=True)
            elif workspace.exists():
                state += ", and the same command with --resume goes on from here"
            if isinstance(reason, OSError):
                raise error(f"{target} cannot be written: {explained(reason)}; {state}.") from reason
            if isinstance(reason, KeyboardInterrupt):
                reason.add_note(f"{target}: {state}")
            raise
        shutil.rmtree(retired(target), ignore_errors=True)
        with contextlib.suppress(OSError):  # the next run removes it
            if (workspace / OUTPUT).exists():
                shutil.rmtree(workspace / OUTPUT)  # the old folder; before what tells it from a new one
            shutil.rmtree(workspace)


@contextlib.contextmanager
def _workspace(target: Path, format_name: str, error: type[RagEngineError]) -> Iterator[tuple[Path, Path]]:
    """The real path of ``target`` and a sibling that this process locks; refuses to replace foreign files."""
    with contextlib.ExitStack() as stack:
        try:
            real = Path(os.path.realpath(target))  # behind a link, the folder is replaced, not the link
            real.parent.mkdir(parents=True, exist_ok=True)
            workspace = real.parent / f".{real.name}.writing"
            stack.enter_context(held_folder(workspace))
            _repair(real)
            _check_replaceable(real, format_name, error)
        except BlockingIOError as reason:
            raise error(f"{target} is being written by another process; wait for it or stop it.") from reason
        except OSError as reason:
            raise error(f"{target!s:.200} cannot be written: {explained(reason)}.") from reason
        except ValueError as reason:  # it holds NUL or half a surrogate pair
            raise error(f"{str(target)!a:.200} is not a path ({reason}); choose another.") from reason
        yield real, workspace


def _repair(target: Path) -> None:
    """Put back the old folder if a run was killed between the two renames of :func:`put_in_place`."""
    old = retired(target)
    if old.exists():
        shutil.rmtree(old) if target.exists() else os.rename(old, target)


def _check_replaceable(target: Path, format_name: str, error: type[RagEngineError]) -> None:
    if not os.path.lexists(target):
        return
    if os.path.ismount(target):
        raise error(f"{target} is a mount point, which cannot be replaced; give a path inside it.")
    if not _is_ours(target, format_name):
        raise error(f"{target} exists and is not a {format_name}; choose another path or remove it first.")
    if not os.access(target, os.W_OK):  # moving a folder needs it; checked before hours of work
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    if Path.cwd().is_relative_to(target):
        raise error(f"{target} is or holds the current folder, so it cannot be replaced; run this elsewhere.")
    if foreign := _foreign_files(target):
        raise error(
            f"{target} holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''} beside the "
            f"{format_name}, which would be lost; move them away or choose another path."
        )


def _is_ours(folder: Path, format_name: str) -> bool:
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == format_name


def _foreign_files(folder: Path) -> list[str]:
    """The files in a folder that its manifest does not list, which somebody has put there."""
    there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix() for path in there} - {MANIFEST}
    if not names:
        return []
    listed = json.loads((folder / MANIFEST).read_text("utf-8")).get("files")
    return sorted(names - (listed.keys() if isinstance(listed, dict) else set()))


def _tidy(workspace: Path, target: Path, resume: bool, error: type[RagEngineError]) -> None:
    """Remove what an earlier run left and this one does not continue with."""
    try:
        if not resume:
            empty_folder(workspace)
        elif _in_place(workspace, target) and (workspace / OUTPUT).exists():
            shutil.rmtree(workspace / OUTPUT)  # the old folder
    except OSError as reason:
        raise error(
            f"{workspace}, left by an earlier run, cannot be emptied: {reason.strerror or reason}; remove it."
        ) from reason


def empty_folder(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _in_place(workspace: Path, target: Path) -> bool:
    """Whether what was written in ``workspace`` has replaced ``target``."""
    try:
        return (workspace / MANIFEST).read_bytes() == (target / MANIFEST).read_bytes()
    except OSError:
        return False


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``manifest.json``: ``content``, and under ``files`` every other file in ``folder``."""
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
    """Read and check ``manifest.json`` of a folder.

    Args:
        folder: the folder.
        cls: the dataclass that the manifest becomes.
        format_name: the ``format`` that it must have.
        version: the newest ``format_version`` that can be read.
        error: the class of the errors that are raised.
        oldest: the oldest ``format_version`` that can be read.

    Raises:
        RagEngineError: as ``error``: the folder is absent, of another format or version, or fields of its
            manifest are missing or wrong, all of which are named.
    """
    path = folder / MANIFEST
    try:
        if not folder.is_dir():
            raise error(f"{folder} is not a folder; a {format_name} was expected there.")
        content = read_json(path)
    except FileNotFoundError:
        raise error(f"{folder} has no {MANIFEST}, so it is not a {format_name}.") from None
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{path} cannot be read: {reason}.") from reason
    if not isinstance(content, dict) or content.get("format") != format_name:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise error(f"{path} says format {found!r:.80}; {format_name!r} was expected.")
    found = content.get("format_version")
    if type(found) is not int or found < 1:
        raise error(
            f"{path} has format_version {found!r:.80}; a whole number from 1 to {version} was expected."
        )
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
    parsed = parse(cls, content)
    if parsed.value is None:
        raise error(f"{path} is damaged: {join_errors(parsed.errors)}; write or copy the folder again.")
    return parsed.value


def check_files(
    folder: Path,
    files: Mapping[str, FileEntry],
    error: type[RagEngineError],
    *,
    needed: Collection[str] = (),
    verify: Verify = "sha256",
) -> None:
    """Check every listed file before any library opens one.

    Names are plain and in one form, and nothing on the way to a file is a link, so that none leaves the
    folder.  What is not a plain file (a pipe, a device) is never opened.

    Args:
        folder: the folder.
        files: what its manifest lists, by name.
        error: the class of the error that is raised.
        needed: the files that must be listed.
        verify: compare sizes and sha256, or sizes only.

    Raises:
        RagEngineError: as ``error``, with everything that is wrong.
        InputError: ``verify`` is neither.
    """
    if verify not in get_args(Verify):
        raise InputError(f"verify is {verify!r:.80}; it must be 'sha256' or 'size'.")
    errors = [f"the manifest does not list {name}" for name in sorted(set(needed) - set(files))]
    seen: dict[str, str] = {}
    for name, entry in files.items():
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            errors.append(f"{name!a:.120} and {twin!a:.120} are one file where case does not count")
        found = _file_error(folder, name, entry, hashes=verify == "sha256")
        if found is not None:
            errors.append(found)
    if errors:
        raise error(f"{folder} is damaged: {join_errors(errors)}; write or copy it again.")


def _file_error(folder: Path, name: str, entry: FileEntry, *, hashes: bool) -> str | None:
    """What is wrong with one listed file, or None."""
    if not _FILE_NAME.fullmatch(name):
        return f"{name!a:.120} is not the plain name of a file inside the folder"
    path = folder / name
    try:
        inside = PurePosixPath(name).parents[-2::-1]  # from the outermost; the last is the folder itself
        for parent in inside:
            if not stat.S_ISDIR(os.lstat(folder / parent).st_mode):
                return f"{name} is missing: {parent} is not a folder"
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return f"{name} is missing: what is there is not a plain file"
        if status.st_size != entry.size:
            return f"{name} has {status.st_size} bytes instead of {entry.size}"
        if hashes and sha256_of(path) != entry.sha256:
            return f"{name} has another sha256 than the manifest"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as reason:
        return f"{name!a:.120} cannot be read ({reason.strerror or reason})"
    return None
