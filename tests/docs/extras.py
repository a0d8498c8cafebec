"""Stands for `pip` where a page's blocks are run: nothing is installed, but what is named must exist.

`pip install ".[cpu,train]"` fails, with the reason, unless `pyproject.toml` has these extras.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> str | None:
    """The reason why the command would fail, or None."""
    command, *requirements = [word for word in arguments if not word.startswith("-")]
    if command != "install" or not requirements:
        return f"only `pip install` is known here, not {arguments}"
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for requirement in requirements:
        found = re.fullmatch(r"(?:\.|ragengine)\[([\w,]+)\]", requirement)
        if found is None:
            return f"{requirement} is not ragengine with extras"
        for extra in found[1].split(","):
            if extra not in known:
                return f"there is no extra {extra}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
