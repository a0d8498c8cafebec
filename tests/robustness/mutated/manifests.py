"""Every field of both manifests, at any depth: missing, of another type, or absurd.

A changed manifest may only open if its field does not describe the files, or still agrees with them: then the
engine answers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from ragengine.storage.folders import MANIFEST
from tests.robustness.children import Case
from tests.robustness.mutated.asking import check_engine
from tests.robustness.mutated.damage import drawing, linked_copy, replace
from tests.support.paths import GOLDEN

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a field."""

OTHER_TYPES: Final = {
    "null": None,
    "true": True,
    "a number": 7,
    "a float": 0.5,
    "a text": "text",
    "a list": [1, "a", None],
    "a deep list": [[[[[[[[[[1]]]]]]]]]],
    "an object": {"a": {"b": 1}},
}
ABSURD: Final = {
    "-1": -1,
    "0": 0,
    "1": 1,
    "2**31": 2**31,
    "2**63": 2**63,
    "10**30": 10**30,
    "1e308": 1e308,
    "-0.0": -0.0,
    "an empty text": "",
    "a long text": "x" * 100_000,
    "NUL": "\0",
    "escapes": "\x1b[2J\u202e\n",
    "..": "..",
    "/etc/passwd": "/etc/passwd",
    "an empty list": [],
    "an empty object": {},
    "many": [0] * 100_000,
}
NOT_JSON: Final = {
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "5000 digits": "9" * 5000,
    "half a surrogate": '"\\ud800"',
    "brackets": "[" * 100_000,
    "twice the same name": '{"a": 1, "a": 2}',
    "nothing": "",
    "a comment": "/* 1 */ 1",
}
_MARK = "@the value@"
_SAMPLED = 350
"""Changed fields in the default run."""


def prepare(base: Path) -> None:
    shutil.copytree(GOLDEN / "bundle_v4", base / "bundle")
    shutil.copytree(GOLDEN / "index_v1", base / "index")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    every = [case for kind in ("bundle", "index") for case in _changes(base, kind)]
    yield from every if exhaustive else drawing(2).sample(every, _SAMPLED)


def _changes(base: Path, kind: str) -> Iterator[Case]:
    content = json.loads((base / kind / MANIFEST).read_text("utf-8"))
    for place in _places(content):
        name = ".".join(map(str, place))
        run = partial(_ask_changed, base, kind, partial(_removed, place))
        yield Case(f"{kind}: {name} removed", run)
        old = _at(content, place)
        for what, value in (OTHER_TYPES | ABSURD).items():
            run = partial(_ask_changed, base, kind, partial(_changed, place, value))
            another = _type_of(value) != _type_of(old) and place[0] not in ("created_from", "generation")
            yield Case(f"{kind}: {name} is {what}", run, mentions=_told_name(place) if another else "")
        for what, text in NOT_JSON.items():
            run = partial(_ask_changed, base, kind, partial(_text_changed, place, text))
            yield Case(f"{kind}: {name} is {what}", run, "refused", mentions=MANIFEST)


def _places(content: Any, before: Place = ()) -> Iterator[Place]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in items:
        yield (*before, name)
        if isinstance(value, dict | list):
            yield from _places(value, (*before, name))


def _told_name(place: Place) -> str:
    """The name of a field in an error: its last key."""
    return next(name for name in reversed(place) if isinstance(name, str))


def _type_of(value: object) -> str:
    """The JSON type of a value; whole numbers count as floats."""
    return "a number" if type(value) in (int, float) else type(value).__name__


def _at(content: Any, place: Place) -> Any:
    for name in place:
        content = content[name]
    return content


def _removed(place: Place, content: Any) -> str:
    del _at(content, place[:-1])[place[-1]]
    return json.dumps(content)


def _changed(place: Place, value: object, content: Any) -> str:
    _at(content, place[:-1])[place[-1]] = value
    return json.dumps(content)


def _text_changed(place: Place, text: str, content: Any) -> str:
    return _changed(place, _MARK, content).replace(f'"{_MARK}"', text)


def _ask_changed(base: Path, kind: str, change: Callable[[Any], str], folder: Path) -> None:
    forged = linked_copy(base / kind, folder / kind)
    text = change(json.loads((forged / MANIFEST).read_text("utf-8")))
    replace(forged / MANIFEST, text.encode("utf-8"))
    check_engine(forged, base / "index") if kind == "bundle" else check_engine(base / "bundle", forged)
