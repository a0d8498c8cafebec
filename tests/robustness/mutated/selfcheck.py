"""Cases of every outcome, which :mod:`tests.robustness.children` must distinguish."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ragengine.errors import IndexFolderError
from tests.robustness.children import Case


def prepare(base: Path) -> None:
    (base / "made").write_text("once")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    yield Case("answers", lambda folder: (base / "made").read_text())
    yield Case("refuses", lambda folder: refuse("It is no index."), "refused", mentions="no index")
    yield Case("segfaults", lambda folder: ctypes.string_at(0))
    yield Case("answers after a crash", lambda folder: (folder / "file").write_text("its own folder"))
    yield Case("aborts", lambda folder: os.abort())
    yield Case("is killed", lambda folder: os.kill(os.getpid(), signal.SIGKILL))
    yield Case("exits", lambda folder: os._exit(0))
    yield Case("hangs", lambda folder: time.sleep(60))
    yield Case("raises", lambda folder: [][0])
    yield Case("interrupts", lambda folder: signal.raise_signal(signal.SIGINT))
    yield Case("takes all memory", lambda folder: bytearray(1 << 40))
    yield Case("takes much memory", lambda folder: bytes(b"\1" * (400 << 20)))
    yield Case("answers wrongly", lambda folder: check(not base.exists()))
    yield Case("answers what it must refuse", lambda folder: None, "refused")
    yield Case("refuses what it must answer", lambda folder: refuse("No."), "answered")
    yield Case("refuses in two lines", lambda folder: refuse("No.\nNever."))
    yield Case("refuses without a word of it", lambda folder: refuse("No."), mentions="yes")
    yield Case("answers at last", lambda folder: None)


def refuse(message: str) -> None:
    raise IndexFolderError(message)


def check(right: bool) -> None:
    assert right
