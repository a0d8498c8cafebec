"""Take one call of a sync out of the source: the recorded order must then break the promise."""

import ast
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ragengine

_SYNCS = ("fsync", "sync", "sync_file", "sync_folder")


class Site(NamedTuple):
    """A call of ``name`` in line ``line`` of ``module``, inside of ``function``."""

    module: str
    function: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.module} {self.function} {self.name}"


def sync_sites() -> list[Site]:
    """Every call in the engine that brings something to disk."""
    root = Path(ragengine.__file__).parent
    sites = []
    for file in sorted(root.rglob("*.py")):
        module = ".".join((root.name, *file.relative_to(root).with_suffix("").parts))
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                sites += [
                    Site(module, function.name, name, node.lineno)
                    for node in ast.walk(function)
                    if isinstance(node, ast.Call) and (name := _called(node.func)) in _SYNCS
                ]
    return sites


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def take_out(site: Site) -> None:
    """From now on, this call does nothing."""
    module = importlib.import_module(site.module)
    owner: Any = os if site.name == "fsync" else module
    real: Callable[..., object] = getattr(owner, site.name)

    def skipping(*arguments: Any) -> None:
        caller = sys._getframe(1)
        if (caller.f_code.co_filename, caller.f_lineno) != (module.__file__, site.line):
            real(*arguments)

    setattr(owner, site.name, skipping)
