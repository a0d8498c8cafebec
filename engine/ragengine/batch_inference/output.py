"""The output of a run: a hidden part file that grows batch by batch and takes its place when it is whole.

The part file is at any moment the beginning of the final file, perhaps with half a line at its end, which a
resumed run cuts off.  Every line names its run, so that a finished file is recognised, too.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from ragengine.batch_inference.questions import FileQuestion
from ragengine.confidence.corpus import fingerprint
from ragengine.errors import InputError, RagEngineError
from ragengine.storage.atomic import (
    explained,
    held_folder,
    keep_private,
    replaced_file,
    sync,
    sync_file,
)
from ragengine.storage.foreign_files import checked_path, file_mode, open_plain
from ragengine.storage.ownership import marked
from ragengine.storage.schema import join_errors, parse
from ragengine.storage.strict_json import read_json

_SYNC_SECONDS: Final = 10.0
"""A power failure loses no more than this."""
_STATE, _PART = "state.json", "answers.part"


@dataclass(frozen=True)
class _State:
    """What a run was begun with, and whether it may replace what is at the output's path."""

    settings: dict[str, str]
    replaces: bool


@dataclass
class OutputFile:
    """The lines of a run in the making: ``done`` of its questions, ``failed`` of these with an error."""

    questions: Sequence[FileQuestion]
    run: str
    done: int = 0
    failed: int = 0
    _file: BinaryIO | None = None
    _synced: float = 0.0

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of the next questions, together."""
        assert self._file is not None
        asked = self.questions[self.done : self.done + len(records)]
        lines = [_line(question, self.run, one) for question, one in zip(asked, records, strict=True)]
        self._file.write(b"".join(lines))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            sync_file(self._file)
            self._synced = time.monotonic()
        self.done += len(records)
        self.failed += sum("error" in one for one in records)

    @property
    def finished(self) -> bool:
        """Whether every question has its line."""
        return self.done == len(self.questions)


@contextlib.contextmanager
def resumable_output(
    path: Path,
    questions: Sequence[FileQuestion],
    settings: Mapping[str, str],
    *,
    batch_size: int,
    force: bool,
) -> Iterator[OutputFile]:
    """Yield the output as an earlier run with the same ``settings`` left it; at the end it takes its place.

    Args:
        path: the file; behind a link, the file is replaced and not the link.
        questions: what is asked, in order.
        settings: what the lines depend on, by name.
        batch_size: questions that are answered together: of a batch all lines are kept or none.
        force: begin anew where an earlier run had other settings, and replace what is at ``path``.

    Raises:
        InputError: it cannot be written, an earlier run had other settings, or something else is at ``path``.
    """
    try:
        real = Path(os.path.realpath(checked_path(path, InputError)))
        if real.exists() and not real.is_file():
            raise InputError(f"{path} is not a plain file, so a run cannot be resumed there; name a file.")
        workspace = real.with_name(f".{real.name}.writing")
        with held_folder(workspace), marked(workspace, InputError):
            yield from _resumed(real, workspace, questions, settings, batch_size, force)
    except OSError as reason:
        if isinstance(reason, RagEngineError):  # a DeadlineError is one of the system's, too
            raise
        raise InputError(f"{path!s:.200} cannot be written: {explained(reason)}.") from reason


def _resumed(
    path: Path,
    workspace: Path,
    questions: Sequence[FileQuestion],
    settings: Mapping[str, str],
    batch_size: int,
    force: bool,
) -> Iterator[OutputFile]:
    state, part = workspace / _STATE, workspace / _PART
    output = OutputFile(questions, fingerprint(settings)[:16])
    before = _read_state(state, force)
    changed = [] if before is None else _differences(before.settings, settings)
    if changed and not force:
        raise InputError(
            f"The answers begun for {path} cannot be gone on with: {join_errors(changed)}; "
            "answer as before, or give --force (in Python force=True) to begin anew."
        )
    going_on = before is not None and not changed
    if file_mode(path) and not (going_on and part.exists()):
        whole, size, failed = _whole_lines(path, output)
        if whole == len(questions) and size == path.stat().st_size and (going_on or not force):
            output.done, output.failed = whole, failed
            yield output
            state.unlink(missing_ok=True)  # a run was killed just after it had put its output in place
            return
        if not (force or (going_on and before is not None and before.replaces)):
            raise InputError(
                f"{path} exists and does not hold these answers; give --force (in Python force=True) to "
                "replace it, or another path."
            )
    if not going_on:
        part.unlink(missing_ok=True)
        with replaced_file(state) as file:
            file.write(json.dumps(dataclasses.asdict(_State(dict(settings), force))).encode())
    elif part.exists():
        whole, _, _ = _whole_lines(part, output)
        output.done = whole if whole == len(questions) else whole - whole % batch_size
    with part.open("r+b" if part.exists() else "wb") as file:
        _, size, output.failed = _whole_lines(part, output, output.done)
        file.truncate(size)
        file.seek(size)
        with contextlib.suppress(OSError):  # the lines are written whether or not their names are safe
            for folder in (workspace, path.parent):  # else a power failure loses the synced lines' names
                sync(folder)
        output._file, output._synced = file, time.monotonic()
        yield output
        sync_file(file)
    if not output.finished or _whole_lines(part, output)[0] != len(questions):
        raise InputError(f"{part} is not what was written; check the disk, and run the same command again.")
    keep_private(path, part)
    part.replace(path)
    with contextlib.suppress(OSError):  # it is in place; a power failure leaves this one or the old one
        sync(path.parent)
    state.unlink()


def _line(question: FileQuestion, run: str, record: Mapping[str, Any]) -> bytes:
    line = {"line": question.line, "id": question.id, "run": run, **record}
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _whole_lines(path: Path, output: OutputFile, most: int | None = None) -> tuple[int, int, int]:
    """The lines at the beginning of a file that are those of this run: their number, bytes and errors."""
    most = len(output.questions) if most is None else most
    count = size = failed = 0
    with open_plain(path) as file:
        for text, question in zip(file, output.questions[:most], strict=False):
            try:
                line = json.loads(text) if text.endswith(b"\n") else None
            except (ValueError, RecursionError):
                line = None
            if not isinstance(line, dict) or (line.get("line"), line.get("run")) != (
                question.line,
                output.run,
            ):
                return count, size, failed
            count, size, failed = count + 1, size + len(text), failed + ("error" in line)
    return count, size, failed


def _read_state(path: Path, force: bool) -> _State | None:
    """What an earlier run left; None where there is nothing, or with ``force`` nothing that can be read."""
    try:
        parsed = parse(_State, read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as reason:
        errors: Sequence[str] = (str(reason),)
    else:
        if parsed.value is not None:
            return parsed.value
        errors = parsed.errors
    if force:
        return None
    raise InputError(f"{path} is damaged ({join_errors(errors)}); give --force (in Python force=True).")


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
