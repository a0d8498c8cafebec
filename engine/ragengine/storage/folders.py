"""Folders with a manifest, which lists every file: written whole or not at all, and checked before use.

A bundle and an index are folders with a ``manifest.json``.  They are written into a hidden sibling and
renamed, so a process that is killed at any point leaves the old folder whole.
"""

import contextlib
import dataclasses
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
from ragengine.messages import short_repr
from ragengine.storage.atomic import (
    explained,
    held_folder,
    keep_private,
    put_in_place,
    replaced_file,
    take_back,
)
from ragengine.storage.foreign_files import checked_path, open_plain, read_plain, shown_path, why
from ragengine.storage.ownership import MANIFEST as MANIFEST
from ragengine.storage.ownership import MARK, check_nothing_foreign, check_replaceable, manifest_name, marked
from ragengine.storage.schema import Hash, Range, join_errors, parse
from ragengine.storage.strict_json import MAX_BYTES, read_json

OUTPUT = "output"
"""The subfolder of a :func:`resumable_folder` that becomes the folder."""
_ASIDE = "old"
"""Where the old folder is in a workspace while the new one is renamed, if replacing takes two steps."""
REMOVED = "removed"
"""Where the old folder is while it is removed: it was looked through, and may be incomplete."""
_STATES = {
    True: "it is the new one",
    False: "nothing was changed",
    None: "the disk does not tell whether the new one is in place; whichever is there is whole",
}
"""What an error says of a target, by :func:`_in_place`."""
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
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entry(path: Path) -> FileEntry:
    """What a manifest says of the file ``path``."""
    return FileEntry(path.stat().st_size, sha256_of(path))


@contextlib.contextmanager
def replaced_folder(
    target: Path, format_name: str, error: type[RagEngineError], *, force: bool = True
) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` when the block ends without an error.

    An existing ``target`` is replaced only if it is empty, or holds a manifest of ``format_name`` and no
    file that this does not list: a mistyped path must never cost anybody a file.  What killed runs left is
    removed.

    Args:
        target: the folder to write.
        format_name: the ``format`` in its manifest.
        error: the class of the errors that are raised.
        force: False refuses to replace a folder, too.

    Raises:
        RagEngineError: as ``error``: ``target`` cannot be replaced, or another process is writing it.
    """
    everything = (BaseException,)
    with resumable_folder(
        target, format_name, error, resume=False, hopeless=everything, force=force
    ) as workspace:
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
    force: bool = True,
) -> Iterator[Path]:
    """Yield a sibling workspace whose subfolder ``OUTPUT`` replaces ``target`` at the end.

    The workspace outlives a kill, an interrupt and every exception but the ``hopeless`` ones.  With
    ``resume`` it is yielded as the last run left it, and ``force`` is what that run was given; else it begins
    empty.  Otherwise as :func:`replaced_folder`.
    """
    with _workspace(target, format_name, error, resume, force) as (target, workspace):
        replacing = False
        try:
            _tidy(workspace, target, resume, format_name, error)
            keep_private(target, workspace)
            yield workspace
            if (workspace / OUTPUT).exists():  # else the last run was killed right after replacing
                _remove_inner_workspaces(workspace / OUTPUT)
                replacing = True
                _replace(target, workspace, format_name, error)
        except BaseException as reason:
            state = _STATES[_in_place(workspace, target, format_name, None if replacing else False)]
            if isinstance(reason, hopeless):
                with contextlib.suppress(OSError, error):  # an old folder with files of others stays
                    _tidy(workspace, target, False, format_name, error)
            elif workspace.exists():
                state += ", and the same command with --resume goes on from here"
            if isinstance(reason, OSError):
                raise error(f"{target} cannot be written: {explained(reason)}; {state}.") from reason
            if isinstance(reason, KeyboardInterrupt):
                reason.add_note(f"{target}: {state}")
            raise
        with contextlib.suppress(OSError):  # the target is in place; the next writer removes what is left
            empty_workspace(workspace)


def remove_leftovers(target: Path, format_name: str, error: type[RagEngineError]) -> None:
    """Remove what a killed run left beside ``target``, for a run that finds nothing to write.

    Raises:
        RagEngineError: as ``error``: it cannot be removed, or another process is writing ``target``.
    """
    real = Path(os.path.realpath(target))
    if os.path.lexists(_workspace_path(real)):
        with resumable_folder(target, format_name, error, resume=False, hopeless=(BaseException,)):
            pass


def _remove_inner_workspaces(folder: Path) -> None:
    """Remove what writing folders inside ``folder`` left where it could not: nobody would go on with it.

    In place it would be a file of others, and ``folder`` could not be replaced any more.
    """
    for path in folder.glob(".*.writing"):
        if path.is_dir() and ((path / MARK).exists() or not any(path.iterdir())):
            shutil.rmtree(path)


def _workspace_path(target: Path) -> Path:
    """The hidden sibling in which ``target`` is written."""
    return target.parent / f".{target.name}.writing"


def _replace(target: Path, workspace: Path, format_name: str, error: type[RagEngineError]) -> None:
    """Put the new folder in the place of ``target``, unless files of others came into that meanwhile."""
    check_replaceable(target, format_name, error)
    name = manifest_name(format_name)
    with replaced_file(workspace / name) as file:  # how `_in_place` recognises the new one
        file.write((workspace / OUTPUT / name).read_bytes())
    old = put_in_place(workspace / OUTPUT, target, workspace / _ASIDE)
    if old is not None:  # nobody reaches it by its name any more: what is in it now is all there will be
        try:
            check_nothing_foreign(old, target, format_name, error)
        except RagEngineError:
            take_back(workspace / OUTPUT, target, old)
            raise
        _remove(old, workspace)


@contextlib.contextmanager
def _workspace(
    target: Path, format_name: str, error: type[RagEngineError], resume: bool, force: bool
) -> Iterator[tuple[Path, Path]]:
    """The real path of ``target`` and a sibling that this process locks; refuses to replace foreign files."""
    if not isinstance(force, bool):  # "no" counts as true, and an index would be gone
        raise error(f"force is {short_repr(force)}; it must be True or False.")
    with contextlib.ExitStack() as stack:
        try:
            checked_path(target, error)
            real = Path(os.path.realpath(target))  # behind a link, the folder is replaced, not the link
            real.parent.mkdir(parents=True, exist_ok=True)
            workspace = _workspace_path(real)
            stack.enter_context(held_folder(workspace))
            stack.enter_context(marked(workspace, error))
            _repair(real, workspace)
            resumed = resume and any(path.name != MARK for path in workspace.iterdir())
            check_replaceable(real, format_name, error, force=force or resumed)
        except BlockingIOError as reason:
            raise error(f"{target} is being written by another process; wait for it or stop it.") from reason
        except OSError as reason:
            raise error(f"{target!s:.200} cannot be written: {explained(reason)}.") from reason
        yield real, workspace


def _repair(target: Path, workspace: Path) -> None:
    """Put back the old folder if a run was killed between the two renames of :func:`put_in_place`."""
    aside = workspace / _ASIDE
    if aside.exists() and not target.exists():
        os.rename(aside, target)


def _tidy(workspace: Path, target: Path, resume: bool, format_name: str, error: type[RagEngineError]) -> None:
    """Remove what a run left and no other continues with; raises ``error`` for files of others in it."""
    replaced = _in_place(workspace, target, format_name)
    try:
        for old in (workspace / OUTPUT if replaced else None, workspace / _ASIDE):
            if old is not None and old.exists():
                check_nothing_foreign(old, old, format_name, error)
                _remove(old, workspace)
        if not resume:
            empty_workspace(workspace)
    except OSError as reason:
        raise error(
            f"{workspace}, left by an earlier run, cannot be emptied: {reason.strerror or reason}; remove it."
        ) from reason


def _remove(old: Path, workspace: Path) -> None:
    """Remove an old folder that was looked through."""
    shutil.rmtree(workspace / REMOVED, ignore_errors=True)
    os.rename(old, workspace / REMOVED)
    shutil.rmtree(workspace / REMOVED, ignore_errors=True)


def empty_workspace(workspace: Path) -> None:
    """Remove everything in a workspace but its mark."""
    for path in workspace.iterdir():
        if path.name != MARK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _in_place(workspace: Path, target: Path, format_name: str, unknown: bool | None = False) -> bool | None:
    """Whether what was written in ``workspace`` has replaced ``target``; ``unknown`` where a disk fails."""
    name = manifest_name(format_name)
    try:
        written, there = (read_plain(folder / name, MAX_BYTES) for folder in (workspace, target))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return unknown
    return written == there


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``manifest.json``: ``content``, and under ``files`` every other file in ``folder``."""
    files = {
        path.relative_to(folder).as_posix(): dataclasses.asdict(file_entry(path))
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
    file_name: str = MANIFEST,
    writer: str | None = None,
) -> T:
    """Read and check the manifest of a folder.

    Args:
        folder: the folder.
        cls: the dataclass that the manifest becomes.
        format_name: the ``format`` that it must have.
        version: the newest ``format_version`` that can be read.
        error: the class of the errors that are raised.
        oldest: the oldest ``format_version`` that can be read.
        file_name: the name of the manifest.
        writer: the command that writes such a folder, for the message where there is none.

    Raises:
        RagEngineError: as ``error``: the folder is absent, of another format or version, or fields of its
            manifest are missing or wrong, all of which are named.
    """
    path = checked_path(folder, error) / file_name
    made = f" ({writer} writes one)" if writer else ""
    try:
        if not folder.is_dir():
            raise error(f"{shown_path(folder)} is not a folder; a {format_name} was expected there{made}.")
        content = read_json(path)
    except FileNotFoundError:
        raise error(f"{folder} has no {file_name}, so it is not a {format_name}{made}.") from None
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{shown_path(path)} cannot be read: {why(reason)}.") from reason
    if not isinstance(content, dict) or content.get("format") != format_name:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise error(f"{path} says format {found!r:.80}; {format_name!r} was expected{made}.")
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
