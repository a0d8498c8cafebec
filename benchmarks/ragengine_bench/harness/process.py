"""The parent's side of :mod:`ragengine_bench.harness.worker`: start an engine's process, call it, end it."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ragengine.errors import RagEngineError

_WORKER = Path(__file__).with_name("worker.py")


class EngineError(RagEngineError):
    """An engine of the benchmark failed; the message is one sentence."""


@dataclass(frozen=True)
class Call:
    """One call of an engine: its own wall-clock seconds, and the most memory resident in bytes."""

    seconds: float
    peak_bytes: int
    result: Any


class Engine:
    """An engine in a process of its own.  Closing it ends the process."""

    def __init__(
        self, target: str, settings: dict[str, Any], *, threads: int, python: str | None = None, limit: float
    ) -> None:
        """Start ``target`` (MODULE:CLASS, or FILE.py:CLASS for another environment's ``python``).

        ``limit`` is the most seconds that a call may take.  Raises :class:`EngineError` when it does not
        load.
        """
        # -I: another environment must not find this one's packages
        command = (
            [python, "-I", str(_WORKER)]
            if python
            else [sys.executable, "-m", "ragengine_bench.harness.worker"]
        )
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self._limit = limit
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        try:
            self._process = subprocess.Popen(
                [*command, target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which keeps what was measured
            )
        except OSError as reason:
            self._log.close()
            raise EngineError(f"{command[0]} cannot be started: {reason.strerror}") from reason
        self._buffer = b""
        try:
            self.loaded = self._ask({"load": settings})
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *, fresh: bool = False, **arguments: Any) -> Call:
        """Call ``method`` of the engine; its time is taken there.  Raises :class:`EngineError`."""
        return self._ask({"call": method, "with": arguments, "fresh": fresh})

    def close(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that nobody read
                    file.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> Call:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise EngineError("its process was ended before")
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as reason:
            raise EngineError(self._ending()) from reason
        reply = json.loads(self._line())
        if "error" in reply:
            raise EngineError(reply["error"])
        return Call(reply["seconds"], reply["peak_bytes"], reply.get("result"))

    def _line(self) -> bytes:
        """The next line of the reply, waited for at most the limit."""
        assert self._process.stdout is not None
        until = time.monotonic() + self._limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    self.close()
                    raise EngineError(f"no answer within {self._limit:.0f} s")
                read = os.read(self._process.stdout.fileno(), 1 << 16)
                if not read:
                    raise EngineError(self._ending())
                self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ending(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with code {code}" + (f": {lines[-1][:300]}" if lines else "")


def have(python: str | None, modules: Sequence[str]) -> bool:
    """Whether the environment of ``python`` (this one by default) has all of ``modules``."""
    missing = f"any(importlib.util.find_spec(name) is None for name in {list(modules)})"
    code = f"import importlib.util; raise SystemExit({missing})"
    command = [python or sys.executable, "-I", "-c", code]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False
