"""JSON by the letter of the standard: Python's own reader accepts what a manifest must not hold."""

import functools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

from ragengine.storage.foreign_files import read_plain

MAX_BYTES: Final = 16 << 20
"""The largest manifest that is read; those of ragengine have some kilobytes."""
MAX_DEPTH: Final = 512
"""How deep objects and lists may be nested.  What is deeper exhausts the stack of code that walks through it.
Merges of early versions nested their history, by two levels each."""


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.  Repeated names, NaN, infinite numbers and half surrogate pairs are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no plain file, too large, nested too deeply or not JSON.
        OSError: it cannot be read.
        RecursionError: its objects are nested much too deeply.
    """
    return parse_json(read_plain(path, MAX_BYTES).decode("utf-8"))


def parse_json(text: str, most_names: int | None = None) -> Any:
    """Read a JSON text; raises :class:`ValueError` or :class:`RecursionError` as :func:`read_json` does.

    ``most_names`` is how many an object may have; None: any number.
    """
    content = json.loads(
        text,
        object_pairs_hook=functools.partial(_object, most=most_names),
        parse_constant=_constant,
        parse_float=_finite,
        parse_int=_whole,
    )
    _check_depth(content)
    if "\\u" in text:  # only an escape can write half a surrogate pair
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def _check_depth(content: Any) -> None:
    layer = [content]
    for _ in range(MAX_DEPTH + 1):
        layer = [
            inner
            for value in layer
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not layer:
            return
    raise ValueError(f"its objects are nested deeper than {MAX_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]], most: int | None) -> dict[str, Any]:
    if most is not None and len(pairs) > most:
        raise ValueError(f"an object has {len(pairs)} names, and at most {most} are read")
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice!a:.80} occurs twice in one object")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.40} is larger than any float")
    return number


def _whole(text: str) -> int:
    if len(text) > 40:  # Python's own limit is 4300 digits
        raise ValueError(f"the number {text:.40}... has {len(text)} digits")
    return int(text)
