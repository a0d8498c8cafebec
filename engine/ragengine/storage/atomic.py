"""Files and folders that are replaced in one step, which a kill or a power failure cannot leave half done.

What is written is brought to disk (fsync) before it is renamed: a rename alone survives a kill, but a machine
that loses power may keep the new name and lose the new content.  The system would spend the same time on
writing it later.
"""

import contextlib
import ctypes
import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ragengine.errors import InputError
from ragengine.storage.ownership import marked

try:
    import fcntl
except ModuleNotFoundError:  # not a POSIX system: two writers are not detected, and folders cannot be synced
    fcntl = None  # type: ignore[assignment]  # checked before it is used

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_REMEDIES = {
    errno.EAGAIN: "wait for it or stop it",
    errno.EIO: "check the disk and its limits, or write to another disk",
    errno.ENOSPC: "make room there or write to another disk",
    errno.EDQUOT: "make room within the quota or write to another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) or write to another disk",
    errno.EACCES: "write where you have permission to",
    errno.EPERM: "write where you have permission to",
    errno.EROFS: "write to a disk that is not read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
    # Neither a mount point nor a folder of a container's image (overlayfs) can be renamed.
    errno.EBUSY: "write to a path inside the mount, or to another one",
    errno.EXDEV: "write to a path outside the container's image, or to another one",
}


@contextlib.contextmanager
def replaced_file(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces ``path`` when the block ends without an error; else ``path`` stays.

    Args:
        path: the file.
        partial: where it is written, on the same disk; what a killed run left there is overwritten.  By
            default a hidden sibling: only for a ``path`` in a folder of ragengine's own.

    Raises:
        OSError: the file cannot be written, or another process is writing it.
    """
    partial = partial or path.with_name(f".{path.name}.writing")
    handle = lock(partial, os.O_RDWR | os.O_CREAT)
    try:
        with os.fdopen(handle, "wb") as file:
            file.truncate()
            yield file
            sync_file(file)
            keep_private(path, partial)
            if fcntl is None:
                file.close()  # Windows renames no open file
            partial.replace(path)  # while the handle still holds the lock
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # it is in place; a power failure leaves this one or the old one
        sync(path.parent)


@contextlib.contextmanager
def output_file(path: str | Path, *, parents: bool = False) -> Iterator[BinaryIO]:
    """Yield a file that the user named: as :func:`replaced_file`, but a pipe or device is written directly.

    It is written in a hidden sibling folder, which is marked as ragengine's: a file of somebody else's that
    happens to have that name stays.

    Args:
        path: the file; behind a link, the file is replaced and not the link.
        parents: also make the folders above it.

    Raises:
        InputError: it cannot be written, or what is at the sibling's name is not ragengine's.
    """
    path = Path(path)
    try:
        real = Path(os.path.realpath(path))
    except ValueError as reason:  # it holds NUL or half a surrogate pair
        raise InputError(f"{str(path)!a:.200} cannot be written: {reason}; choose another path.") from reason
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        workspace = real.with_name(f".{real.name}.writing")
        with (
            held_folder(workspace),
            marked(workspace, InputError),
            replaced_file(real, workspace / real.name) as file,
        ):
            yield file
    except OSError as reason:
        raise InputError(f"{path!s:.200} cannot be written: {explained(reason)}.") from reason


def sync_file(file: BinaryIO) -> None:
    """Flush what was written into ``file`` to disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder and everything in it to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def put_in_place(source: Path, target: Path, aside: Path) -> Path | None:
    """Replace the folder ``target`` by ``source``.

    On Linux the two change places in one step.  On other systems, and on some network disks, the old folder
    is first moved to ``aside``, where it stays, and moved back if the second move fails; a process that is
    killed between the two moves leaves no ``target``.

    Returns:
        Where the old folder is then: ``source`` or ``aside``; None if there was none.
    """
    keep_private(target, source)
    sync_folder(source)
    if not target.exists():
        os.rename(source, target)
        old = None
    elif exchange(source, target):
        old = source
    else:
        os.rename(target, aside)
        try:
            os.rename(source, target)
        except BaseException:
            os.rename(aside, target)
            raise
        old = aside
    with contextlib.suppress(OSError):  # it is in place; a power failure leaves this one or the old one
        sync(target.parent)
    return old


def take_back(source: Path, target: Path, old: Path) -> None:
    """Undo :func:`put_in_place`, which has left the old folder at ``old``."""
    if old == source:
        exchange(source, target)
    else:
        os.rename(target, source)
        os.rename(old, target)


def keep_private(old: Path, new: Path) -> None:
    """Give ``new`` the permissions of ``old``, if that exists, so that a private folder stays private."""
    with contextlib.suppress(OSError):  # a disk without permissions
        shutil.copymode(old, new)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where this system or disk cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def lock(path: Path, flags: int) -> int:
    """Open ``path`` and lock it for this process; the lock ends with the handle, however the process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    while True:
        handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is None:
                return handle
            _flock(handle, path)
            # Its last holder may have removed or renamed it meanwhile: then this locks something else.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


@contextlib.contextmanager
def held_folder(path: Path) -> Iterator[None]:
    """Make a folder, if there is none, and :func:`lock` it; an empty one is removed at the end."""
    path.mkdir(exist_ok=True)
    handle = None if fcntl is None else lock(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty, or is gone
            path.rmdir()
        if handle is not None:
            os.close(handle)


def explained(reason: Exception) -> str:
    """Why something cannot be written, which file it concerns, and what to do about it."""
    what = getattr(reason, "strerror", None) or str(reason)
    remedy = _REMEDIES.get(getattr(reason, "errno", None) or 0, "choose another path")
    name = getattr(reason, "filename", None)
    return f"{what} ({name!s:.200}); {remedy}" if name else f"{what}; {remedy}"


def _flock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as reason:
        raise BlockingIOError(reason.errno, "another process is writing it", str(path)) from reason
    except OSError:
        pass  # a disk without locks, such as NFS for folders: two writers are not detected there


def sync(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to disk."""
    if fcntl is None:
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as reason:
        if reason.errno not in (errno.EINVAL, errno.ENOTSUP):  # a disk that cannot sync folders
            raise
    finally:
        os.close(handle)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """The C library's ``renameat2``, where it has one."""
    try:
        function: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function  # type: ignore[no-any-return]  # ctypes creates functions on demand
