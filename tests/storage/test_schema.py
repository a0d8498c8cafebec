"""Manifests are somebody else's data: every error is named by its path, and none crashes the reader."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.storage.schema import Parsed, Pattern, Range, join_errors, parse


@dataclass(frozen=True)
class Inner:
    size: int
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    weight: float
    inner: Inner
    maybe: int | None
    flags: list[bool]
    sizes: dict[str, int]
    parts: dict[str, Inner] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    anything: Any = None


WHOLE = {
    "name": "n",
    "weight": 0.5,
    "inner": {"size": 1},
    "maybe": None,
    "flags": [True],
    "sizes": {"x": 2},
    "parts": {"p": {"size": 3, "kind": "b"}},
    "notes": {"owner": "data"},
}


def test_whole_object_is_read_and_unknown_fields_are_ignored() -> None:
    outer = parse(Outer, {**WHOLE, "of_a_newer_version": 1})
    assert not outer.errors
    assert outer.value == Outer(
        "n", 0.5, Inner(1), None, [True], {"x": 2}, {"p": Inner(3, "b")}, {"owner": "data"}
    )


def test_whole_number_is_a_float_but_not_the_other_way_round() -> None:
    assert parse(Outer, {**WHOLE, "weight": 2}).value == dataclasses.replace(_whole(), weight=2.0)
    assert parse(Outer, {**WHOLE, "maybe": 2.0}) == Parsed(None, ("maybe: expected int, found float",))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": 1}, "name: expected str, found int"),
        ({"weight": True}, "weight: expected float, found bool"),
        ({"weight": 10**400}, "weight: expected float, found int"),
        ({"inner": {"size": True}}, "inner.size: expected int, found bool"),
        ({"inner": {}}, "inner.size: missing"),
        ({"inner": []}, "inner: expected an object, found list"),
        ({"flags": [True, 0]}, "flags[1]: expected bool, found int"),
        ({"sizes": {"x": "2"}}, "sizes.x: expected int, found str"),
        ({"notes": {"owner": 1}}, "notes.owner: expected str, found int"),
        ({"sizes": []}, "sizes: expected an object, found list"),
        ({"parts": {"p": {"size": 1, "kind": "c"}}}, "parts.p.kind: 'c' is not one of 'a', 'b'"),
    ],
)
def test_each_error_names_its_path(change: dict[str, Any], error: str) -> None:
    assert parse(Outer, {**WHOLE, **change}) == Parsed(None, (error,))


def test_all_errors_are_reported_at_once() -> None:
    outer = parse(Outer, {"name": None, "weight": 1.0, "inner": {"size": "s"}})
    assert outer.value is None
    assert {error.split(":")[0] for error in outer.errors} == {
        "name",
        "inner.size",
        "maybe",
        "flags",
        "sizes",
    }


@dataclass(frozen=True)
class Limited:
    number: Annotated[int, Range(1, 5)] = 1
    word: Annotated[str, Pattern("[a-z]+", "a word")] = "a"
    either: int | str | None = None
    several: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "read", [{"number": 1}, {"number": 5}, {"word": "abc"}, {"either": 3}, {"either": "x"}, {"either": None}]
)
def test_what_a_limit_allows(read: dict[str, Any]) -> None:
    assert parse(Limited, read).value == Limited(**read)
    assert parse(Limited, {"several": [1, 2]}).value == Limited(several=(1, 2))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": 0}, "number: 0 is not from 1 to 5"),
        ({"number": 6}, "number: 6 is not from 1 to 5"),
        ({"number": "1"}, "number: expected int, found str"),
        ({"word": "a b"}, "word: 'a b' is not a word"),
        ({"word": "A" * 78}, f"word: '{'A' * 78}' is not a word"),
        ({"word": "A" * 79}, f"word: '{'A' * 76}... is not a word"),
        ({"either": 1.5}, "either: expected str, found float"),
        ({"several": {}}, "several: expected a list, found dict"),
        ({"several": [1, None]}, "several[1]: expected int, found NoneType"),
    ],
)
def test_what_a_limit_refuses(change: dict[str, Any], error: str) -> None:
    assert parse(Limited, change) == Parsed(None, (error,))


def test_the_largest_whole_number_that_is_a_float() -> None:
    largest = int(sys.float_info.max)
    assert parse(Outer, {**WHOLE, "weight": largest}).value == dataclasses.replace(
        _whole(), weight=float(largest)
    )


def test_a_path_is_put_before_the_names_of_fields() -> None:
    assert parse(Inner, {}, "a.b").errors == ("a.b.size: missing",)
    assert parse(Inner, [], "a.b").errors == ("a.b: expected an object, found list",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(WHOLE)), JSON))
def test_any_json_gives_an_object_or_errors_never_a_crash(changes: dict[str, Any]) -> None:
    result = parse(Outer, {**WHOLE, **changes})
    assert (result.value is None) == bool(result.errors)


@given(
    st.builds(
        Outer,
        name=st.text(),
        weight=st.floats(allow_nan=False),
        inner=st.builds(Inner, size=st.integers()),
        maybe=st.none() | st.integers(),
        flags=st.lists(st.booleans()),
        sizes=st.dictionaries(st.text(), st.integers()),
        parts=st.dictionaries(st.text(), st.builds(Inner, size=st.integers())),
        anything=JSON.filter(lambda value: value == value),
    )
)
def test_json_round_trip(outer: Outer) -> None:
    text = json.dumps(dataclasses.asdict(outer))
    read = parse(Outer, json.loads(text)).value
    assert read is not None
    assert json.dumps(dataclasses.asdict(read)) == text


def _whole() -> Outer:
    outer = parse(Outer, WHOLE).value
    assert outer is not None
    return outer


def test_very_many_errors_are_counted() -> None:
    assert join_errors(["a", "b"]) == "a; b"
    assert join_errors(["a"] * 20) == "; ".join(["a"] * 20)
    assert join_errors(["a"] * 21) == "; ".join(["a"] * 20) + "; and 1 more errors"
    many = join_errors([str(n) for n in range(1000)])
    assert many.startswith("0; 1; ")
    assert many.endswith("; 19; and 980 more errors")
