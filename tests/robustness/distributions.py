"""The requirements of a distribution, and theirs."""

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(names: set[str], extras: set[str]) -> set[str]:
    """The installed distributions that ``names`` with ``extras`` require, including themselves."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset(extras)) for name in names]
    while waiting:
        name, wanted = waiting.pop()
        if name in found and not wanted:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (wanted or {""})):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found
