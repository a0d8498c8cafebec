"""JSON files of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragengine.storage.atomic import output_file


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON; the file is whole or as it was.  Raises :class:`ragengine.errors.InputError`."""
    with output_file(path, parents=True) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
