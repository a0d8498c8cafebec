"""What a killed build leaves for ``resume``: how far it came, beside the files that it was writing."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ragengine.errors import IndexFolderError
from ragengine.storage.atomic import replaced_file
from ragengine.storage.folders import OUTPUT
from ragengine.storage.schema import parse

_STATE = "state.json"


@dataclass
class BuildState:
    """How far a build has come.

    ``settings`` are what its result depends on, in words; ``count`` is None while passages are read; ``rows``
    vectors are stored, the longest of norm ``max_norm``; ``timings`` are seconds a phase.  A trained or
    filled FAISS index is told by its file.
    """

    settings: dict[str, str]
    count: int | None = None
    rows: int = 0
    max_norm: float = 0.0
    finished: bool = False
    timings: dict[str, float] = field(default_factory=dict)


class Workspace:
    """The folder of a build that is under way.  Files in ``output`` become the index."""

    def __init__(self, folder: Path, state: BuildState) -> None:
        self.folder = folder
        self.output = folder / OUTPUT
        self.state = state
        self._mark = time.monotonic()

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, str]) -> "Workspace":
        """Begin in an empty folder, or go on in one that a build with the same ``settings`` left.

        Raises :class:`IndexFolderError` naming every setting that differs.
        """
        path = folder / _STATE
        if not path.exists():
            workspace = cls(folder, BuildState(dict(settings)))
            workspace.output.mkdir(exist_ok=True)
            workspace.save("passages")
            return workspace
        try:
            parsed = parse(BuildState, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as reason:
            raise IndexFolderError(f"{path} cannot be read: {reason}; build without --resume.") from reason
        state = parsed.value
        if state is None:
            raise IndexFolderError(f"{path} is damaged: {'; '.join(parsed.errors)}; build without --resume.")
        names = sorted(state.settings.keys() | settings.keys())
        differing = [
            f"{name} was {state.settings.get(name, 'not set')}, is {settings.get(name, 'not set')}"
            for name in names
            if state.settings.get(name) != settings.get(name)
        ]
        if differing:
            raise IndexFolderError(
                f"The build left in {folder} cannot be resumed: {'; '.join(differing)}; "
                "build as before, or without --resume."
            )
        return cls(folder, state)

    def save(self, phase: str) -> None:
        """Write down the state, and that the time since the last call was spent on ``phase``."""
        now = time.monotonic()
        self.state.timings[phase] = round(self.state.timings.get(phase, 0.0) + now - self._mark, 3)
        self._mark = now
        with replaced_file(self.folder / _STATE) as file:
            file.write(json.dumps(dataclasses.asdict(self.state), indent=2).encode())

    @property
    def unsaved_seconds(self) -> float:
        """Seconds since the state was written."""
        return time.monotonic() - self._mark


def describe_files(files: list[Path]) -> str:
    """Name, size and time of files: what says that an input is still the same without reading it."""
    shown = []
    for file in files:
        status = file.stat()
        shown.append(f"{file.name} ({status.st_size} bytes, modified {status.st_mtime_ns})")
    if len(shown) <= 3:
        return ", ".join(shown)
    digest = hashlib.sha256("\n".join([*map(str, files), *shown]).encode())
    return f"{len(shown)} files ({digest.hexdigest()[:12]})"
