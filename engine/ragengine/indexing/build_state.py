"""What a killed build leaves for ``resume``: how far it came, beside the files that it was writing."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragengine.errors import IndexFolderError
from ragengine.storage.atomic import replaced_file, sync_folder
from ragengine.storage.folders import OUTPUT, empty_workspace
from ragengine.storage.schema import parse
from ragengine.storage.strict_json import read_json

_STATE = "state.json"


@dataclass
class Checkpoint:
    """How far a build has come.

    settings   what the result depends on, by name
    count      the number of passages; None while they are read
    rows       vectors stored
    max_norm   the largest Euclidean norm of those vectors
    coded      vectors whose codes are in a file of codes
    finished   whether every file of the index is written
    timings    seconds a phase

    Whether the FAISS index is trained or filled is seen from its files.
    """

    settings: dict[str, str]
    count: int | None = None
    rows: int = 0
    max_norm: float = 0.0
    coded: int = 0
    finished: bool = False
    timings: dict[str, float] = field(default_factory=dict)


class BuildState:
    """The folder of a build that is under way, with its checkpoint.

    Files in ``output`` become the index; those beside it are removed with the folder.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, *, resumable: bool = True) -> None:
        """Where it is not ``resumable``, the checkpoint is not written again once the build has begun."""
        self._resumable = resumable
        self.folder = folder
        self.output = folder / OUTPUT
        self.checkpoint = checkpoint
        self._mark = time.monotonic()

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, str], *, resumable: bool = True) -> "BuildState":
        """Begin in an empty folder, or go on in one that a build with the same ``settings`` left.

        Raises :class:`IndexFolderError` naming every setting that differs.
        """
        path = folder / _STATE
        if not path.exists():
            empty_workspace(folder)  # what a run has left that could not remove all of it
            state = cls(folder, Checkpoint(dict(settings)), resumable=resumable)
            state.output.mkdir(exist_ok=True)
            state._write()
            return state
        try:
            parsed = parse(Checkpoint, read_json(path))
        except (OSError, ValueError, RecursionError) as reason:
            raise IndexFolderError(f"{path} cannot be read: {reason}; build without --resume.") from reason
        checkpoint = parsed.value
        if checkpoint is None:
            raise IndexFolderError(f"{path} is damaged: {'; '.join(parsed.errors)}; build without --resume.")
        if differing := differences(checkpoint.settings, settings):
            raise IndexFolderError(
                f"The build left in {folder} cannot be resumed: {'; '.join(differing)}; "
                "build as before, or without --resume."
            )
        return cls(folder, checkpoint)

    def save(self, phase: str) -> None:
        """Write the checkpoint; the time since the last call counts as spent on ``phase``."""
        now = time.monotonic()
        timings = self.checkpoint.timings
        timings[phase] = round(timings.get(phase, 0.0) + now - self._mark, 3)
        self._mark = now
        if self._resumable:
            self._write()

    def _write(self) -> None:
        sync_folder(self.output)  # a power failure must not leave a checkpoint that counts what is lost
        with replaced_file(self.folder / _STATE) as file:
            file.write(json.dumps(dataclasses.asdict(self.checkpoint), indent=2).encode())

    @property
    def unsaved_seconds(self) -> float:
        """The time since the last :meth:`save`."""
        return time.monotonic() - self._mark


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each setting that is not what it was, in words."""
    return [
        f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def describe_files(files: Sequence[Path], *, times: bool = True) -> str:
    """Name, size and time of change of files: whether an input is still the same, without reading it.

    Without ``times``, a copy on another machine has the same description.
    """
    shown = []
    for file in files:
        status = file.stat()
        modified = f", modified {status.st_mtime_ns}" if times else ""
        shown.append(f"{file.name} ({status.st_size} bytes{modified})")
    if len(shown) <= 3:
        return ", ".join(shown)
    paths = map(str, files) if times else ()
    digest = hashlib.sha256("\n".join([*paths, *shown]).encode())
    return f"{len(shown)} files ({digest.hexdigest()[:12]})"
