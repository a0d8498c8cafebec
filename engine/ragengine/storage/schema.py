"""Strict reading of JSON objects into frozen dataclasses.

A manifest is somebody else's data: every field is checked for presence, type and range before it is used,
and all faults are reported at once, each with its dotted path (``generator.num_heads``).  A range is written
where the field is declared: ``num_heads: Annotated[int, Range(1, 1024)]``.
"""

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

T = TypeVar("T")

_MOST_TOLD = 20


@dataclasses.dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float

    def fault(self, value: float) -> str | None:
        """What is wrong with ``value``, or None."""
        return None if self.low <= value <= self.high else f"is not from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A text that ``expression`` matches whole; ``meaning`` says what that is."""

    expression: str
    meaning: str

    def fault(self, value: str) -> str | None:
        """What is wrong with ``value``, or None."""
        return None if re.fullmatch(self.expression, value) else f"is not {self.meaning}"


# Limits of what is read, far above every real model and index: behind them a forged number can make no code
# overflow.  Nothing is allocated by any of these numbers; files are compared with them.
Size: TypeAlias = Annotated[int, Range(1, 1 << 20)]
"""A dimension, a length, a number of parts."""
Count: TypeAlias = Annotated[int, Range(0, 1 << 48)]
Setting: TypeAlias = Annotated[int, Range(1, (1 << 31) - 1)]
"""A search setting, an int of C."""
TokenId: TypeAlias = Annotated[int, Range(0, (1 << 31) - 1)]
FileName: TypeAlias = Annotated[str, Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "one plain name")]
Line: TypeAlias = Annotated[
    str, Pattern(r"[^\x00-\x1f\x7f-\x9f]{0,1000}", "a line of at most 1000 characters")
]
"""A text for people, which may be printed: it cannot hold what a terminal obeys."""
Hash: TypeAlias = Annotated[str, Pattern(r"[0-9a-f]{64}", "a sha256 in hexadecimal")]


def parse(cls: type[T], data: object, faults: list[str], path: str = "") -> T | None:
    """Build the dataclass ``cls`` from a JSON object.

    Faults are appended to ``faults`` as ``"path: what is wrong"``; the result is ``None`` where there
    was one.  Unknown fields are ignored, so that a newer minor version may add some.
    """
    if not isinstance(data, dict):
        faults.append(f"{path or 'manifest'}: expected an object, found {type(data).__name__}")
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    before = len(faults)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass by contract
        where = f"{path}.{field.name}" if path else field.name
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], faults, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{where}: missing")
    return cls(**values) if len(faults) == before else None


def join_errors(faults: Sequence[str]) -> str:
    """Faults in one clause; of very many, which have one cause, the first ones and their number."""
    more = len(faults) - _MOST_TOLD
    return "; ".join(faults[:_MOST_TOLD]) + (f"; and {more} more faults" if more > 0 else "")


def _value(hint: Any, value: Any, faults: list[str], path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _limited(arguments, value, faults, path)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        for choice in (a for a in arguments if a is not type(None)):
            tried: list[str] = []
            result = _value(choice, value, tried, path)
            if not tried:
                return result
        faults.extend(tried)
        return None
    if origin is typing.Literal:
        if value not in arguments:
            faults.append(f"{path}: {_short(value)} is not one of {', '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type[Any], hint), value, faults, path)
    if origin is dict:
        if not isinstance(value, dict):
            faults.append(f"{path}: expected an object, found {type(value).__name__}")
            return None
        return {
            key: _value(arguments[1], item, faults, f"{path}.{_short(key)[1:-1]}")
            for key, item in value.items()
        }
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            faults.append(f"{path}: expected a list, found {type(value).__name__}")
            return None
        return origin(_value(arguments[0], item, faults, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not hint:
        faults.append(f"{path}: expected {hint.__name__}, found {type(value).__name__}")
    return value


def _limited(arguments: tuple[Any, ...], value: Any, faults: list[str], path: str) -> Any:
    """A value of ``Annotated[type, limit]``."""
    hint, limit = arguments
    before = len(faults)
    result = _value(hint, value, faults, path)
    fault = limit.fault(result) if len(faults) == before else None
    if fault is not None:
        faults.append(f"{path}: {_short(value)} {fault}")
    return result


def _short(value: Any) -> str:
    """``value`` as Python writes it, if it is short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
