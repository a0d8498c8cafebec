"""Manifests are somebody else's data: every fault is found and named by its path, none crashes the reader."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.storage.schema import parse


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
    anything: Any = None


WHOLE = {
    "name": "n",
    "weight": 0.5,
    "inner": {"size": 1},
    "maybe": None,
    "flags": [True],
    "sizes": {"x": 2},
    "parts": {"p": {"size": 3, "kind": "b"}},
}


def test_whole_object_is_read_and_unknown_fields_are_ignored() -> None:
    faults: list[str] = []
    outer = parse(Outer, {**WHOLE, "of_a_newer_version": 1}, faults)
    assert not faults
    assert outer == Outer("n", 0.5, Inner(1), None, [True], {"x": 2}, {"p": Inner(3, "b")})


def test_whole_number_is_a_float_but_not_the_other_way_round() -> None:
    assert parse(Outer, {**WHOLE, "weight": 2}, []) == dataclasses.replace(_whole(), weight=2.0)
    faults: list[str] = []
    assert parse(Outer, {**WHOLE, "maybe": 2.0}, faults) is None
    assert faults == ["maybe: expected int, found float"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": 1}, "name: expected str, found int"),
        ({"weight": True}, "weight: expected float, found bool"),
        ({"weight": 10**400}, "weight: expected float, found int"),
        ({"inner": {"size": True}}, "inner.size: expected int, found bool"),
        ({"inner": {}}, "inner.size: missing"),
        ({"inner": []}, "inner: expected an object, found list"),
        ({"flags": [True, 0]}, "flags[1]: expected bool, found int"),
        ({"sizes": {"x": "2"}}, "sizes.x: expected int, found str"),
        ({"sizes": []}, "sizes: expected an object, found list"),
        ({"parts": {"p": {"size": 1, "kind": "c"}}}, "parts.p.kind: 'c' is not one of 'a', 'b'"),
    ],
)
def test_each_fault_is_named_by_its_path(change: dict[str, Any], fault: str) -> None:
    faults: list[str] = []
    assert parse(Outer, {**WHOLE, **change}, faults) is None
    assert faults == [fault]


def test_all_faults_are_reported_at_once() -> None:
    faults: list[str] = []
    assert parse(Outer, {"name": None, "weight": 1.0, "inner": {"size": "s"}}, faults) is None
    assert {fault.split(":")[0] for fault in faults} == {"name", "inner.size", "maybe", "flags", "sizes"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(WHOLE)), JSON))
def test_any_json_gives_an_object_or_faults_never_a_crash(changes: dict[str, Any]) -> None:
    faults: list[str] = []
    result = parse(Outer, {**WHOLE, **changes}, faults)
    assert (result is None) == bool(faults)


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
    read = parse(Outer, json.loads(text), [])
    assert read is not None
    assert json.dumps(dataclasses.asdict(read)) == text


def _whole() -> Outer:
    outer = parse(Outer, WHOLE, [])
    assert outer is not None
    return outer
