"""JSON by the letter of the standard: what Python's own reader accepts beyond it is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.storage.strict_json import MAX_DEPTH, parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "1e999 is larger than any float"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' occurs twice"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"\\udfff": 1}', "surrogates not allowed"),
        ("1" * 41, "has 41 digits"),
        ("1" * 100_000, "has 100000 digits"),
        ("\ufeff{}", "BOM"),
        ("{} {}", "Extra data"),
        ("{'a': 1}", "double quotes"),
        ("", "Expecting value"),
    ],
)
def test_what_is_not_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),  # without surrogates
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_json_is_read_as_it_was_written(content: Any) -> None:
    assert parse_json(json.dumps(content)) == content
    assert parse_json(json.dumps(content, ensure_ascii=False)) == content


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_typed_error(content: bytes) -> None:
    try:
        parse_json(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    json.loads(content)


def test_the_deepest_nesting_and_the_longest_number_that_are_read() -> None:
    deepest = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deepest)) == deepest
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH} levels"):
        parse_json(f"[{deepest}]")
    assert parse_json("1" * 40) == int("1" * 40)


def test_a_large_object_with_a_name_twice_is_refused_at_once() -> None:
    """The reader must not look for the name in quadratic time."""
    names = ", ".join(f'"{n}": 0' for n in range(300_000))
    with pytest.raises(ValueError, match="the name '0' occurs twice"):
        parse_json(f'{{{names}, "0": 1}}')
