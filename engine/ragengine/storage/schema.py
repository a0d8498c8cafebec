"""Strict reading of JSON objects into frozen dataclasses.

A manifest is somebody else's data: every field is checked for presence, type and range before it is used,
and all errors are reported at once, each with its dotted path (``generator.num_heads``).  A range is written
where the field is declared: ``num_heads: Annotated[int, Range(1, 1024)]``.
"""

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")

_MOST_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[T]):
    """What was read: ``value``, or None and everything that is wrong, such as ``"files: missing"``."""

    value: T | None
    errors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float

    def error(self, value: float) -> str | None:
        """What is wrong with ``value``, or None."""
        return None if self.low <= value <= self.high else f"is not from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A text that ``expression`` matches whole; ``meaning`` says what that is."""

    expression: str
    meaning: str

    def error(self, value: str) -> str | None:
        """What is wrong with ``value``, or None."""
        return None if re.fullmatch(self.expression, value) else f"is not {self.meaning}"


# Limits of what is read, far above every real model and index, so that no forged number makes code overflow.
# None of these numbers decides how much memory is allocated; files are compared with them.
Size: TypeAlias = Annotated[int, Range(1, 1 << 20)]
"""A dimension, a length, a number of parts."""
LARGEST_COUNT: Final = 1 << 48
Count: TypeAlias = Annotated[int, Range(0, LARGEST_COUNT)]
Setting: TypeAlias = Annotated[int, Range(1, (1 << 31) - 1)]
"""A search setting, an int of C."""
TokenId: TypeAlias = Annotated[int, Range(0, (1 << 31) - 1)]
FileName: TypeAlias = Annotated[str, Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "one plain name")]
Line: TypeAlias = Annotated[
    str, Pattern(r"[^\x00-\x1f\x7f-\x9f]{0,1000}", "a line of at most 1000 characters")
]
"""A text for people that is safe to print: it holds no control characters."""
Hash: TypeAlias = Annotated[str, Pattern(r"[0-9a-f]{64}", "a sha256 in hexadecimal")]


def parse(cls: type[T], data: object, path: str = "") -> Parsed[T]:
    """Build the dataclass ``cls`` from a JSON object.

    Unknown fields are ignored, so that a newer minor version may add some.

    Args:
        cls: the dataclass; its annotations say what each field may hold.
        data: a JSON value, as :func:`ragengine.storage.strict_json.read_json` returns it.
        path: the place of ``data`` in a larger object, put before the names of its fields.

    Returns:
        The object, or every error as ``"path: what is wrong"``.
    """
    if not isinstance(data, dict):
        return _refused(path or "manifest", f"expected an object, found {type(data).__name__}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Parsed[Any]] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is always a dataclass
        where = f"{path}.{field.name}" if path else field.name
        if field.name in data:
            fields[field.name] = _value(hints[field.name], data[field.name], where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            fields[field.name] = _refused(where, "missing")
    if errors := _errors(fields.values()):
        return Parsed(None, errors)
    return Parsed(cls(**{name: field.value for name, field in fields.items()}))


def join_errors(errors: Sequence[str]) -> str:
    """Errors in one clause: the first ones and the number of the others, which mostly have the same cause."""
    more = len(errors) - _MOST_LISTED
    return "; ".join(errors[:_MOST_LISTED]) + (f"; and {more} more errors" if more > 0 else "")


def _value(hint: Any, value: Any, path: str) -> Parsed[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return Parsed(value)
    if origin is Annotated:
        return _limited(arguments, value, path)
    if origin in (types.UnionType, typing.Union):
        return _alternative(arguments, value, path)
    if origin is typing.Literal:
        choices = ", ".join(map(repr, arguments))
        return (
            Parsed(value)
            if value in arguments
            else _refused(path, f"{_short(value)} is not one of {choices}")
        )
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type[Any], hint), value, path)
    if origin in (dict, Mapping):
        return _mapping(arguments[1], value, path)
    if origin in (list, tuple):
        return _sequence(origin, arguments[0], value, path)
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return Parsed(float(value))
    if type(value) is not hint:
        return _refused(path, f"expected {hint.__name__}, found {type(value).__name__}")
    return Parsed(value)


def _limited(arguments: tuple[Any, ...], value: Any, path: str) -> Parsed[Any]:
    """A value of ``Annotated[hint, limit]``, with a :class:`Range` or :class:`Pattern` as its limit."""
    hint, limit = arguments
    result = _value(hint, value, path)
    error = None if result.errors else limit.error(result.value)
    return result if error is None else _refused(path, f"{_short(value)} {error}")


def _alternative(hints: Sequence[Any], value: Any, path: str) -> Parsed[Any]:
    """A value of a union: read as the first type that it fits; where none does, the errors of the last."""
    if value is None and type(None) in hints:
        return Parsed(None)
    for hint in (hint for hint in hints if hint is not type(None)):
        result = _value(hint, value, path)
        if not result.errors:
            break
    return result


def _mapping(hint: Any, value: Any, path: str) -> Parsed[Any]:
    if not isinstance(value, dict):
        return _refused(path, f"expected an object, found {type(value).__name__}")
    items = {key: _value(hint, item, f"{path}.{_short(key)[1:-1]}") for key, item in value.items()}
    if errors := _errors(items.values()):
        return Parsed(None, errors)
    return Parsed({key: item.value for key, item in items.items()})


def _sequence(kind: type[list[Any]] | type[tuple[Any, ...]], hint: Any, value: Any, path: str) -> Parsed[Any]:
    if not isinstance(value, (list, tuple)):
        return _refused(path, f"expected a list, found {type(value).__name__}")
    items = [_value(hint, item, f"{path}[{place}]") for place, item in enumerate(value)]
    if errors := _errors(items):
        return Parsed(None, errors)
    return Parsed(kind(item.value for item in items))


def _errors(parts: Iterable[Parsed[Any]]) -> tuple[str, ...]:
    return tuple(error for part in parts for error in part.errors)


def _refused(path: str, reason: str) -> Parsed[Any]:
    return Parsed(None, (f"{path}: {reason}",))


def _short(value: Any) -> str:
    """``value`` as Python writes it; of a long one its beginning."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
