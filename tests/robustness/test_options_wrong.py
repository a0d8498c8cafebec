"""Every option with every kind of wrong value: an error that names it, before anything is computed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragengine import Answer, GenerationOptions
from ragengine.errors import InputError, MemoryLimitError, OptionsError
from ragengine_bench.parity.pairs import Pair
from tests.robustness.test_requests import assert_sound, outcome
from tests.support.ids import stable_repr

NAMES = [field.name for field in dataclasses.fields(GenerationOptions)]
ODD_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3.5, -0.5, 0.5, 1e308, math.nan, math.inf, -math.inf, 10**30, "", "token",
    "fast", "never", b"1", [], [1], [[1]], [[]], [None], ["a"], [-1], [True], [10**30], {}, {"a": 1}, set(),
    object(), np.int64(3), np.float32(0.5), np.array([1, 2]), 1 + 2j, Ellipsis,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_taken_or_named(name: str) -> None:
    taken = 0
    for value in ODD_VALUES:
        result = outcome(GenerationOptions, **{name: value})
        if isinstance(result, OptionsError):
            assert name in str(result)
            assert str(result).startswith("Wrong generation options: ")
        else:
            taken += 1
            assert GenerationOptions.from_dict(result.to_dict()) == result
    assert 0 < taken < len(ODD_VALUES)


def test_all_wrong_ones_are_named_at_once() -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions(**dict.fromkeys(NAMES, object()))
    assert all(f"{name} is " in str(error.value) for name in NAMES)


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ODD_VALUES), max_size=4))
@settings(max_examples=150)
def test_any_mixture_is_answered_or_refused(pair: Pair, chosen: dict[str, Any]) -> None:
    result = outcome(pair.engine.generate, "who?", **chosen)
    if isinstance(result, Answer):
        assert_sound(result)
    else:
        assert isinstance(result, OptionsError | MemoryLimitError)
        assert "\n" not in str(result)


@pytest.mark.parametrize("name", ["nun_beams", "beams", "max_lenght", "", " ", "num_beams ", "é"])
def test_unknown_names(pair: Pair, name: str) -> None:
    with pytest.raises(OptionsError, match="is not a generation option"):
        pair.engine.generate("who?", **{name: 1})


@pytest.mark.parametrize("options", [{"num_beams": 2}, 3, "fast", object()], ids=stable_repr)
def test_options_of_another_kind(pair: Pair, options: Any) -> None:
    for call in (
        lambda: pair.engine.generate("who?", options=options),
        lambda: pair.engine.score("who?", "a", options=options),
    ):
        with pytest.raises(OptionsError, match=r"^options is \w+; it must be GenerationOptions"):
            call()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [10**40, -(10**40), 10**400, 10**5000], ids=list("abcd"))
def test_numbers_beyond_a_float_or_beyond_what_python_writes(name: str, value: int) -> None:
    with pytest.raises(OptionsError, match=rf"{name} is .*, it must be a number of at most 40 digits\.$"):
        GenerationOptions(**{name: value})
    for tokens in ([value], [[value]]):
        assert name in str(outcome(GenerationOptions, **{name: tokens}))


def test_whatever_a_call_takes_no_number_is_too_large_to_name(pair: Pair) -> None:
    for name in ("deadline", "doc_pruning", "filter", "documents", "abstain", "cancel"):
        with pytest.raises(InputError, match=name):
            pair.engine.generate("who?", **{name: 10**5000})


@pytest.mark.parametrize("pruning", [-0.1, 1.1, math.nan, "a", None, True, []], ids=repr)
def test_pruning_thresholds(pair: Pair, pruning: Any) -> None:
    if pruning is None:
        assert_sound(pair.engine.generate("who?", doc_pruning=pruning))
        return
    with pytest.raises(InputError, match="doc_pruning is"):
        pair.engine.generate("who?", doc_pruning=pruning)
