"""The Markdown pages of the repository and their fenced blocks: read, run, compared with the output shown."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

LANGUAGES = {"bash", "python", "text", "toml", "markdown", "json"}
"""What a fence of a page whose blocks are run may say.  `bash` and `python` run, unless a title names the
file to save it in; `text` is output; the others are files."""

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)")


def all_pages() -> list[Path]:
    """Every Markdown page that people read."""
    below = [page for name in ("docs", "examples", "benchmarks") for page in (ROOT / name).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *below])


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the title after it, its text, and the line of the page it begins on."""

    language: str
    title: str | None
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        language, _, rest = fence["info"].strip().partition(" ")
        title = re.fullmatch(r'title="([^"]*)"', rest.strip())
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(language, title[1] if title else None, fence["code"], line))
    return found


def run_page(page: Path, folder: Path) -> int:
    """Run a page's blocks in order in ``folder`` as its reader would; the number of outputs compared.

    `examples/` is there as in a clone.  `pip install` only checks that the extras exist, `make` that the
    targets do: what they would install is installed already.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        "PATH": f"{_tools(folder / '.bin')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "COLUMNS": "100",
    }
    compared, output = 0, None
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.language == "text":
            assert output is not None, f"{where}: output of no command"
            message = difference(block.code, output, any_numbers=block.title is not None)
            assert message is None, f"{where}: {message}; printed was\n{output}"
            compared, output = compared + 1, None
        elif block.title is not None:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.code, "utf-8")
        elif block.language in ("bash", "python"):
            command = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable, "-"]
            done = subprocess.run(
                command,
                input=block.code,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stderr}"
            output = done.stdout
        else:
            raise AssertionError(f"{where}: a {block.language} block without the name of its file")
    return compared


def difference(expected: str, found: str, *, any_numbers: bool = False) -> str | None:
    """What differs between a shown output and a printed one, or None.

    White space counts once.  A line ``...`` stands for any lines.  Times may be any.  A number with a point
    may differ by 0.01 and a percentage by 1, since other processors round otherwise; with ``any_numbers``
    every number may be any.
    """
    shown, printed = _lines(expected), _lines(found)
    while shown:
        if shown[0] == "...":
            shown.pop(0)
            if not shown:
                return None
            skipped = next((n for n, line in enumerate(printed) if _alike(shown[0], line, any_numbers)), None)
            if skipped is None:
                return f"no line is {shown[0]!r}"
            printed = printed[skipped:]
            continue
        if not printed:
            return f"the output ends before {shown[0]!r}"
        if not _alike(shown[0], printed[0], any_numbers):
            return f"{shown[0]!r} is shown and {printed[0]!r} printed"
        shown.pop(0)
        printed.pop(0)
    return f"{printed[0]!r} is printed and not shown" if printed else None


def _lines(text: str) -> list[str]:
    lines = [re.sub(r"─+", "─", " ".join(line.split())) for line in text.splitlines()]
    return [line for line in lines if line]


def _alike(shown: str, printed: str, any_numbers: bool) -> bool:
    first, second = _NUMBER.split(shown), _NUMBER.split(printed)
    if first[::2] != second[::2]:
        return False
    any_numbers = any_numbers or " ms (" in shown
    following = first[2::2]
    return all(
        any_numbers or _close(a, b, after)
        for a, b, after in zip(first[1::2], second[1::2], following, strict=True)
    )


def _close(shown: str, printed: str, after: str) -> bool:
    if re.match(r" m?s\b", after):
        return True
    apart = abs(float(shown) - float(printed))
    if "." in shown and "." in printed:
        return apart <= 0.0101
    return apart <= (1 if after.startswith("%") else 0)


def _tools(folder: Path) -> Path:
    """A folder with the commands that a page may call."""
    folder.mkdir()
    python = shlex.quote(sys.executable)
    make = shlex.quote(shutil.which("make") or "make")
    extras = shlex.quote(str(Path(__file__).with_name("extras.py")))
    scripts = {
        "python": f'exec {python} "$@"',
        "ragengine": f'exec {python} -c "from ragengine.cli.main import main; main()" "$@"',
        "pip": f'exec {python} {extras} "$@"',
        "make": f'exec {make} --dry-run --directory {shlex.quote(str(ROOT))} "$@"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder
