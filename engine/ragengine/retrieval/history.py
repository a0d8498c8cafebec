"""Where an index came from: the ``created_from`` of its manifest, flat and bounded.

passages, vectors, faiss   the names of the files that it was made from
merged                     or, of a merged index, a list with those names for each index that is in it
added                      the names of the files that were added since
deleted                    how many passages were deleted since
merged_before, added_before   how many earlier entries of a list were left out
"""

from collections.abc import Iterable
from typing import Any, Final

LONGEST: Final = 100
"""How many entries of a list are kept: the newest."""

_CHANGES = ("merged", "added", "deleted", "merged_before", "added_before")


def with_added(history: dict[str, Any], name: str) -> dict[str, Any]:
    """The history of an index after the file ``name`` was added."""
    return flat_history({**history, "added": [*_listed(history, "added"), name]})


def with_deleted(history: dict[str, Any], count: int) -> dict[str, Any]:
    """The history of an index after ``count`` passages were deleted."""
    return flat_history({**history, "deleted": _number(history, "deleted") + count})


def with_synced(history: dict[str, Any], name: str) -> dict[str, Any]:
    """The history of an index that holds what ``name`` holds, and nothing else any more."""
    vectors = {"vectors": history["vectors"]} if "vectors" in history else {}
    return flat_history({"passages": name, **vectors})


def origins(history: dict[str, Any]) -> list[str]:
    """The names of everything whose passages an index holds, or held."""
    flat = flat_history(history)
    made_from = [flat, *_listed(flat, "merged")]
    names = [entry["passages"] for entry in made_from if isinstance(entry.get("passages"), str)]
    earlier = _number(flat, "added_before") + _number(flat, "merged_before")
    return [*names, *_listed(flat, "added"), *(["others"] if earlier else [])]


def of_merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The history of an index that two were merged into."""
    return flat_history({"merged": [first, second]})


def flat_history(history: dict[str, Any]) -> dict[str, Any]:
    """``history`` with one list of what was merged, which early versions nested, and without what is unknown.

    Its names are kept where they are texts, and its numbers where they are whole: it may be a stranger's.
    """
    origins: list[dict[str, str]] = []
    added: list[str] = []
    numbers = dict.fromkeys(("merged_before", "added_before", "deleted"), 0)
    pending: list[Any] = [history]
    while pending:  # depth first, in order; not recursive, since the depth is whatever a file says
        entry = pending.pop()
        if not isinstance(entry, dict):
            continue
        pending += reversed(_listed(entry, "merged"))
        origin = {k: v for k, v in entry.items() if k not in _CHANGES and isinstance(v, str)}
        origins += [origin] if origin else []
        added += (name for name in _listed(entry, "added") if isinstance(name, str))
        for name in numbers:
            numbers[name] += _number(entry, name)
    numbers["merged_before"] += max(0, len(origins) - LONGEST)
    numbers["added_before"] += max(0, len(added) - LONGEST)
    made_from = {"merged": origins[-LONGEST:]} if "merged" in history else next(iter(origins), {})
    changes = {"added": added[-LONGEST:], **numbers}
    return {**made_from, **{name: value for name, value in changes.items() if value}}


def described(history: dict[str, Any]) -> str:
    """A flat history in one line."""

    def line(values: Iterable[tuple[str, Any]]) -> str:
        return ", ".join(f"{name.replace('_', ' ')}: {_text(value)}" for name, value in values)

    def _text(value: Any) -> str:
        if not isinstance(value, list):
            return str(value)
        return "; ".join(line(entry.items()) if isinstance(entry, dict) else entry for entry in value)

    return line(history.items())


def _listed(entry: dict[str, Any], name: str) -> list[Any]:
    found = entry.get(name)
    return found if isinstance(found, list) else []


def _number(entry: dict[str, Any], name: str) -> int:
    found = entry.get(name)
    return found if type(found) is int and 0 <= found < 1 << 48 else 0
