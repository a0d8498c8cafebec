"""Strict reading of JSON objects into frozen dataclasses.

A manifest is somebody else's data: every field is checked for presence and type before it is used, and
all faults are reported at once, each with its dotted path (``generator.num_heads``).
"""

import dataclasses
import sys
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def parse(cls: type[T], data: object, faults: list[str], path: str = "") -> T | None:
    """Build the dataclass ``cls`` from a JSON object.

    Faults are appended to ``faults`` as ``"path: what is wrong"``; the result is ``None`` where there
    was one.  Unknown fields are ignored, so that a newer minor version may add some.
    """
    if not isinstance(data, dict):
        faults.append(f"{path or 'manifest'}: expected an object, found {type(data).__name__}")
        return None
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(faults)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass by contract
        where = f"{path}.{field.name}" if path else field.name
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], faults, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{where}: missing")
    return cls(**values) if len(faults) == before else None


def _value(hint: Any, value: Any, faults: list[str], path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
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
            faults.append(f"{path}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type[Any], hint), value, faults, path)
    if origin is dict:
        if not isinstance(value, dict):
            faults.append(f"{path}: expected an object, found {type(value).__name__}")
            return None
        return {key: _value(arguments[1], item, faults, f"{path}.{key}") for key, item in value.items()}
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
