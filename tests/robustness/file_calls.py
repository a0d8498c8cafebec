"""Count, record and fail the calls to the C library by which a process changes files (``file_calls.c``)."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

PASS: Final = 0
FAIL: Final = 1
FAIL_FROM_HERE: Final = 2
SHORT: Final = 3
KILL: Final = 4
COMPILER: Final = shutil.which("gcc") or shutil.which("cc")


class Call(NamedTuple):
    """open, create, truncate, write, sync, chmod, mkdir, remove, rename, exchange or link, and its path."""

    name: str
    path: str
    new_path: str = ""


def compiled(folder: Path) -> Path:
    """Compile the library into ``folder``; a process gets it by ``LD_PRELOAD``."""
    library = folder / "file_calls.so"
    source = Path(__file__).with_suffix(".c")
    command = [str(COMPILER), "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    return library


def fail_at(root: Path, number: int, what: int, error: int = 0) -> None:
    """From now on, do ``what`` to call ``number`` of those that change something below ``root``."""
    _library().file_calls_begin(os.fsencode(root), -1, ctypes.c_long(number), what, error)


@contextlib.contextmanager
def recorded(root: Path) -> Iterator[list[Call]]:
    """Yield a list that holds the calls of the block, once that has ended."""
    calls: list[Call] = []
    with tempfile.TemporaryFile("w+") as record:
        _library().file_calls_begin(os.fsencode(root), record.fileno(), ctypes.c_long(-1), PASS, 0)
        try:
            yield calls
        finally:
            _library().file_calls_begin(b"", -1, ctypes.c_long(-1), PASS, 0)
        record.seek(0)
        calls += [Call(*line.rstrip("\n").split("\t")) for line in record]


def _library() -> Any:
    return ctypes.CDLL(None)  # what was preloaded is part of the process
