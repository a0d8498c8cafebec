"""The streams of a command: a full disk is an error in one sentence, and libraries say nothing unsafe."""

import io
import logging
import os
import sys
import warnings
from typing import Any, Final

from ragengine.errors import RagEngineError
from ragengine.messages import one_line, shown_lines

_STDOUT: Final = 1


class OutputError(RagEngineError):
    """What a command prints cannot be written."""


def guard_streams() -> None:
    """Make standard output raise :class:`OutputError`, and standard error give up, where writing fails.

    A reader that closes its end of the pipe is no error: click ends the command.  Characters that the
    encoding lacks are escaped.  Log messages and warnings of other libraries are shown as ragengine's own.
    """
    sys.stdout = _guarded(sys.stdout, _Output)
    sys.stderr = _guarded(sys.stderr, _Errors)
    logging.setLogRecordFactory(_Record)
    written = warnings.formatwarning
    warnings.formatwarning = lambda *args, **given: shown_lines(written(*args, **given))


def abandon_stdout() -> None:
    """Let what could not be written to standard output go nowhere, so that Python can end."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a descriptor, not a path, is what is needed
        os.dup2(nowhere.fileno(), _STDOUT)


class _Output(io.FileIO):
    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as reason:
            raise OutputError(
                f"Standard output cannot be written ({one_line(reason.strerror)}); write it elsewhere."
            ) from reason


class _Errors(io.FileIO):
    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:  # there is nowhere left to say it
            return memoryview(data).nbytes


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        return shown_lines(super().getMessage())


def _guarded(stream: Any, kind: type[io.FileIO]) -> Any:
    """The stream over a file of ``kind``; itself where it is closed or not a file of the process."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
