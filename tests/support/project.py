"""The content of pyproject.toml."""

import tomllib
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


def packages() -> dict[str, Path]:
    """Every package that a wheel contains, with its folder."""
    folders = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["where"]
    return {path.parent.name: path.parent for name in folders for path in (ROOT / name).glob("*/__init__.py")}
