"""Where ragengine was installed from, and the command that installs an extra of it from there."""

import importlib.util
import json
import shlex
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ragengine.errors import DependencyError

TORCH_FOR_CPU: Final = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
"""PyPI's torch for Linux brings gigabytes of CUDA with it; this one does not."""

_WITH_TORCH: Final = ("export", "train", "bench")


def pip_install(extra: str) -> str:
    """The command that installs an extra from where this ragengine came from: a clone, a wheel, an index.

    Where the extra needs torch and there is none, the command for a machine without a GPU comes with it.
    """
    name = _requirement(extra)
    command = f"pip install -e {name}" if _clone() is not None else f"pip install {name}"
    if extra in _WITH_TORCH and not _is_there("torch"):
        return f"{command} (without a GPU run {TORCH_FOR_CPU} before it)"
    return command


def missing_package(who: str, reason: ImportError, extra: str) -> DependencyError:
    """The error for a package that cannot be imported; ``who`` is subject and verb, such as "Plots need"."""
    package = (reason.name or "").partition(".")[0] or str(reason)
    return _missing(who, package, extra)


def check_packages(who: str, packages: Sequence[str], extra: str) -> None:
    """Raise :class:`DependencyError` where one of ``packages`` is not installed; imports none of them."""
    for package in packages:
        if not _is_there(package):
            raise _missing(who, package, extra)


def _missing(who: str, package: str, extra: str) -> DependencyError:
    return DependencyError(f"{who} the package {package}, which is not installed; run {pip_install(extra)}.")


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # refused by an import hook, or None in sys.modules
        return False


def _requirement(extra: str) -> str:
    """What pip is given, quoted for a shell."""
    clone, source = _clone(), _direct_url()
    url = source.get("url", "")
    if clone is not None:
        requirement = f"{clone}[{extra}]"
    elif "vcs_info" in source:
        kind, commit = source["vcs_info"]["vcs"], source["vcs_info"]["commit_id"]
        requirement = f"ragengine[{extra}] @ {kind}+{url}@{commit}"
    elif url.startswith("file:"):
        requirement = f"{unquote(urlsplit(url).path)}[{extra}]"
    else:
        requirement = f"ragengine[{extra}] @ {url}" if url else f"ragengine[{extra}]"
    plain = not set('"$`\\!') & set(requirement)
    return f'"{requirement}"' if plain else shlex.quote(requirement)


@cache
def _clone() -> Path | None:
    """The clone whose files run here, whether it was installed or is on the path."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "engine").is_dir() else None


@cache
def _direct_url() -> dict[str, Any]:
    """What the installer recorded where it did not take ragengine from an index (PEP 610), else {}."""
    folder = Path(__file__).resolve().parents[1]  # the metadata lie beside the package that runs here
    for found in distributions(name="ragengine", path=[str(folder)]):
        try:
            recorded = json.loads(found.read_text("direct_url.json") or "{}")
        except ValueError:
            continue
        if isinstance(recorded, dict):
            return recorded
    return {}
