"""The one way to open a file that somebody else made: a plain file, and no more of it than is needed.

Reading a pipe or a device might never end, opening one may act on it, and a link in a stranger's folder may
lead to any file of the reader's.
"""

import errno
import functools
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from ragengine.errors import RagEngineError
from ragengine.messages import short_repr
from ragengine.storage.unpacking import GZIP_SUFFIX, binary_kind, unpacked

LONGEST_LINE: Final = 64 << 20
"""The bytes of the longest line that is read: a file without line ends would be read whole."""


def open_plain(path: Path, *, links: bool = True, within: Path | None = None) -> BufferedReader:
    """Open a plain file for reading.

    Args:
        path: the file.
        links: whether ``path`` itself may be a link, as one that a user names may be.
        within: the folder that ``path`` was found in; a link in it must not lead out of it.

    Raises:
        ValueError: it is a folder, a pipe or a device, it is outside of ``within``, or it is no path.
        OSError: it cannot be read.
    """
    if within is not None:
        path, links = _real_path(path, within), False
    _check_plain((os.stat if links else os.lstat)(path).st_mode)  # opening a device may act on it
    return open(path, "rb", opener=functools.partial(_opened, links=links))  # Path.open takes no opener


def open_unpacked(path: Path, *, within: Path | None = None) -> BufferedReader:
    """As :func:`open_plain`; of a file whose name ends in ``.gz`` it is the content that is read.

    Reading raises :class:`ValueError` where that is no gzip file, or one that is damaged or a bomb.
    """
    file = open_plain(path, within=within)
    return unpacked(file) if path.suffix.lower() == GZIP_SUFFIX else file


def read_plain(path: Path, most: int, *, links: bool = False, within: Path | None = None) -> bytes:
    """Read a plain file of at most ``most`` bytes; otherwise as :func:`open_plain`.

    Raises:
        ValueError: as :func:`open_plain`, or it is larger.
        OSError: it cannot be read.
    """
    with open_plain(path, links=links, within=within) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size} bytes, more than the {most} that are read")
        return file.read(size)


def plain_size(path: Path, within: Path | None = None) -> int:
    """The bytes of a plain file that will be read later; raises as :func:`open_plain`."""
    status = (path if within is None else _real_path(path, within)).stat()
    _check_plain(status.st_mode)
    return status.st_size


def utf8_lines(path: Path, error: type[RagEngineError], within: Path | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; raises ``error``, which names the line that is wrong.

    Args:
        path: the file; one whose name ends in ``.gz`` is unpacked.
        error: the class of the error that is raised.
        within: as for :func:`open_plain`.
    """
    try:
        with open_unpacked(path, within=within) as file:
            start = b""
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
                start = start or line[:16]
                if len(line) > LONGEST_LINE:
                    raise error(
                        f"{path}, line {number}: it has more than {LONGEST_LINE} bytes, the most that are "
                        "read of a line; break it into several."
                    )
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as reason:
                    if (kind := binary_kind(start)) is not None:
                        raise error(f"{shown_path(path)} is {kind}.") from reason
                    raise error(
                        f"{path}, line {number}: byte {line[reason.start]:#04x} at position {reason.start} "
                        "is not UTF-8; convert the file to UTF-8."
                    ) from reason
    except (OSError, ValueError) as reason:
        if isinstance(reason, RagEngineError):
            raise
        raise error(f"{shown_path(path)} cannot be read: {why(reason)}.") from reason


def json_lines(
    path: Path, error: type[RagEngineError], within: Path | None = None
) -> Iterator[tuple[int, str]]:
    """The lines of a JSONL file that are not blank, with their numbers; otherwise as :func:`utf8_lines`.

    A byte order mark, which a file has inside after two were joined, is left out: no JSON begins with one.
    """
    for number, line in enumerate(utf8_lines(path, error, within), start=1):
        line = line.removeprefix("\ufeff")
        if line.strip():
            yield number, line


def check_line_ends(path: Path, line: str, error: type[RagEngineError]) -> None:
    """Raise ``error`` where ``line``, a file's first, is many that end in a carriage return alone."""
    if not line.endswith("\n") and "\r" in line.rstrip("\r"):
        raise error(
            f"{path} has lines that end in a carriage return (CR) alone, so it is one line; convert its line "
            "ends to LF, for example with: tr '\\r' '\\n'."
        )


def checked_path(path: str | os.PathLike[str], error: type[RagEngineError]) -> Path:
    """A path that messages and manifests, which are UTF-8, can name.

    Raises:
        RagEngineError: as ``error``: it is no path, or holds NUL or bytes that are not UTF-8.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise error(f"{short_repr(path)} is not a path; give a str or a Path.")
    text = os.fspath(path)
    if "\0" in text:
        raise error(f"{shown_path(path)} is not a path (it holds a null character); choose another.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise error(
            f"{shown_path(path)} is not a path in UTF-8 ({reason.reason}); rename it or choose another."
        ) from reason
    return Path(path)


def file_mode(path: Path) -> int:
    """The mode of what is at ``path``, behind links; 0 where there is nothing.

    Raises:
        OSError: it cannot be told, since the name is too long or a folder above cannot be read.
    """
    try:
        return path.stat().st_mode
    except OSError as reason:
        if reason.errno in (errno.ENOENT, errno.ENOTDIR):
            return 0
        raise


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path as a message shows it: in one line that can be printed, and not longer than it is useful."""
    text = os.fspath(path)
    return text if len(text) <= 300 and text.isprintable() else f"{text[:200]!a}{'...' * (len(text) > 200)}"


def why(reason: Exception) -> str:
    """What the system says, without the number of the error and the path."""
    return getattr(reason, "strerror", None) or str(reason)


def _real_path(path: Path, within: Path) -> Path:
    real = Path(os.path.realpath(path, strict=True))
    if not real.is_relative_to(os.path.realpath(within, strict=True)):
        raise ValueError(f"it is a link that leads out of {within}; put a copy there, or leave it out")
    return real


def _opened(path: str, flags: int, *, links: bool) -> int:
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if links else getattr(os, "O_NOFOLLOW", 0))
    descriptor = os.open(path, flags)
    try:
        _check_plain(os.fstat(descriptor).st_mode)  # it may have been replaced meanwhile
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _check_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError("it is not a plain file")
