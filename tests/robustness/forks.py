"""Forks of a process, and the steps that they take on the disk."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragengine.errors import RagEngineError
from ragengine.storage import atomic

_CHANGES = ("os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect")
"""Audit events of changes to a disk, in addition to opening a file for writing."""


class Outcome:
    """How a fork ended: with a value, the text of an error (ours or not), or a signal."""

    def __init__(self, status: int, said: bytes) -> None:
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        answer = json.loads(said) if said else {}
        self.value: Any = answer.get("value")
        self.error: str | None = answer.get("error")
        self.ours: bool = answer.get("ours", False)

    def __str__(self) -> str:
        return f"value {self.value}, error {self.error!r}, signal {self.signal}"


def in_fork(function: Callable[[], Any]) -> Outcome:
    """Call ``function`` in a fork; its outcome comes through a pipe, which works on a full disk."""
    receiving, sending = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(receiving)
        try:
            answer: dict[str, Any] = {"value": function()}
        except BaseException as reason:
            ours = isinstance(reason, RagEngineError)
            answer = {"error": f"{type(reason).__name__}: {reason}", "ours": ours}
        os.write(sending, json.dumps(answer).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        said = pipe.read()
    return Outcome(os.waitpid(process, 0)[1], said)


def on_each_step(root: Path, act: Callable[[str], object]) -> None:
    """From now on, call ``act`` with the name of each change under ``root`` before this process makes it."""
    acting = False

    def step(name: str) -> None:
        nonlocal acting
        if not acting:
            acting = True
            act(name)
            acting = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            path = arguments[0]
            if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(root):
                step(f"{event} {Path(path).relative_to(root)}")

    real = atomic.exchange

    def exchange(first: Path, second: Path) -> bool:
        step("before exchange")
        done = real(first, second)
        step("after exchange")
        return done

    atomic.exchange = exchange
    sys.addaudithook(hook)
