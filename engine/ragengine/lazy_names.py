"""Public names of a package that are imported on first use.

`ragengine --help` must not wait for onnxruntime or torch, nor fail where one is missing.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], who: str | None = None, extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its ``__name__``.
        modules: the module of every name, below the package.
        who: subject and verb of the error where another package is missing, such as "Exporting needs".
        extra: the extra that brings what is missing.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        except ModuleNotFoundError as reason:
            if who is None or extra is None:
                raise
            from ragengine.installation import missing_package

            raise missing_package(who, reason, extra) from reason

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
