"""Bundles and indexes as earlier versions wrote them.

A file that several of them have is stored in one; :func:`completed` puts a folder together by the hashes in
its manifest.
"""

import hashlib
import json
import shutil
from pathlib import Path

from tests.support.paths import GOLDEN

ANSWERS = GOLDEN / "answers.json"
"""What the engine of that version answered."""


def completed(name: str, parent: Path) -> Path:
    """The bundle or index ``name`` as it was written, in the folder ``parent``."""
    folder = Path(shutil.copytree(GOLDEN / name, parent / name))
    stored = stored_files()
    for file, entry in json.loads((folder / "manifest.json").read_text("utf-8"))["files"].items():
        if not (folder / file).exists():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(stored[entry["sha256"]], folder / file)
    return folder


def stored_files() -> dict[str, Path]:
    """The files of all bundles and indexes, by their sha256."""
    files = sorted(path for path in GOLDEN.glob("*_v*/**/*") if path.is_file())
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
