"""Changes that a forger would make to a folder; its files are hashed again afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragengine.storage import folders

Change = Callable[[Path], object]


def field(path: str, value: Any) -> Change:
    """Set a field of the manifest, by its dotted path."""

    def change(folder: Path) -> None:
        content = json.loads((folder / folders.MANIFEST).read_text("utf-8"))
        *parents, last = path.split(".")
        inner = content
        for name in parents:
            inner = inner[name]
        inner[last] = value
        (folder / folders.MANIFEST).write_text(json.dumps(content), "utf-8")

    return change


def tokenizer(name: str, edit: Callable[[Any], object]) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text("utf-8"))
        edit(content)
        (folder / name).write_text(json.dumps(content), "utf-8")

    return change
