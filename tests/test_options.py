"""Generation options: names and defaults as transformers has them, and every fault at once."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from ragengine import GenerationOptions, RagEngineError
from ragengine.errors import OptionsError
from ragengine.options import OPTION_NAMES

OWN = {"n_docs", "marginalize", "search", "do_deduplication", "exclude_bos_score", "seed"}
"""Options of RAG, and the seed: the rest are transformers'."""

# For every option values that it takes, and values that it does not with what is said about them.
CASES: dict[str, tuple[list[Any], list[tuple[Any, str]]]] = {
    "n_docs": ([1, 100], [(0, "n_docs is 0, it must be a whole number of at least 1"), (None, "None")]),
    "marginalize": (["token", "sequence"], [("both", "is 'both', it must be 'token' or 'sequence'")]),
    "search": (
        ["thorough", "fast", "joint"],
        [("slow", "is 'slow', it must be 'thorough' or 'fast' or 'joint'"), (None, "search is None")],
    ),
    "do_deduplication": ([True, False], [(1, "is 1, it must be True or False"), (None, "is None")]),
    "exclude_bos_score": ([True, False], [("yes", "is 'yes', it must be True or False")]),
    "num_beams": (
        [1, 8],
        [
            (0, "num_beams is 0, it must be a whole number of at least 1"),
            (2.0, "num_beams is 2.0, it must be a whole number"),
            (True, "num_beams is True"),
        ],
    ),
    "num_return_sequences": ([1], [(0, "num_return_sequences is 0"), (1.5, "is 1.5")]),
    "max_length": ([2, 1024], [(1, "max_length is 1, it must be a whole number of at least 2")]),
    "min_length": ([0, 20], [(-1, "min_length is -1, it must be a whole number of at least 0")]),
    "max_new_tokens": ([None, 1, 99], [(0, "is 0, it must be a whole number of at least 1 or None")]),
    "min_new_tokens": ([None, 0, 5], [(-1, "is -1, it must be a whole number of at least 0 or None")]),
    "length_penalty": ([-1, 0, 0.5, 2], [(float("nan"), "length_penalty is nan"), ("1", "is '1'")]),
    "early_stopping": (
        [True, False, "never"],
        [(1, "is 1, it must be True, False or 'never'"), ("always", "is 'always'")],
    ),
    "no_repeat_ngram_size": ([0, 3], [(-1, "is -1, it must be a whole number of at least 0")]),
    "encoder_no_repeat_ngram_size": ([0, 3], [(None, "is None, it must be a whole number of at least 0")]),
    "repetition_penalty": (
        [0.5, 1, 2.5],
        [(0, "is 0, it must be a number from 1e-6 to 1e6"), (-1.0, "is -1.0")],
    ),
    "bad_words_ids": (
        [None, [[1]], [[1, 2], [3]], ((4,),)],
        [([[]], "it must be a list of non-empty lists of token ids or None"), ([1], "is (1,)"), ("a", "'a'")],
    ),
    "suppress_tokens": ([None, [], [3, 4]], [([-1], "is (-1,), it must be a list of token ids or None")]),
    "begin_suppress_tokens": ([None, (3,)], [(3, "is 3, it must be a list of token ids or None")]),
    "forced_bos_token_id": ([None, 0], [("<s>", "is '<s>', it must be a token id or None")]),
    "forced_eos_token_id": ([None, 2], [(True, "is True"), (-2, "is -2")]),
    "eos_token_id": (
        [None, 2, [2, 3], (2,)],
        [((2, -1), "is (2, -1), it must be a token id, a list of them or None"), ([], "is ()")],
    ),
    "decoder_start_token_id": ([0, 2], [(None, "decoder_start_token_id is None, it must be a token id")]),
    "do_sample": ([True, False], [(None, "do_sample is None")]),
    "temperature": ([0.1, 1, 3.0], [(0, "temperature is 0, it must be a number from 1e-6 to 1e6")]),
    "top_k": ([0, 50], [(-1, "top_k is -1"), (1.0, "top_k is 1.0")]),
    "top_p": ([0.1, 1], [(0, "is 0, it must be a number above 0 and at most 1"), (1.1, "is 1.1")]),
    "typical_p": ([0.1, 1.0], [(0.0, "typical_p is 0.0"), (2, "typical_p is 2")]),
    "epsilon_cutoff": ([0, 0.99], [(1.0, "is 1.0, it must be a number of at least 0 and below 1")]),
    "seed": ([None, 0, 2**40], [(-1, "seed is -1"), (0.5, "seed is 0.5")]),
    "prompt_lookup_num_tokens": (
        [None, 1, 9],
        [(0, "is 0, it must be a whole number of at least 1 or None")],
    ),
    "max_matching_ngram_size": ([None, 1, 3], [(0, "is 0, it must be a whole number of at least 1 or None")]),
}


def test_defaults_are_those_of_transformers() -> None:
    theirs = GenerationConfig._get_default_generation_params()
    ours = GenerationOptions().to_dict()
    assert {name: ours[name] for name in theirs if name in ours} == {
        name: default for name, default in theirs.items() if name in ours
    }
    # The rest: None there, so is it here, but for the token that every decoder needs.
    rest = set(OPTION_NAMES) - OWN - set(theirs)
    assert {name: ours[name] for name in rest if ours[name] is not None} == {"decoder_start_token_id": 2}


def test_names_are_those_of_transformers() -> None:
    assert set(OPTION_NAMES) - OWN <= set(GenerationConfig().to_dict())


def test_every_option_is_tested() -> None:
    assert list(CASES) == list(OPTION_NAMES)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (right, _) in CASES.items() for value in right], ids=str
)
def test_a_right_value_is_taken(name: str, value: Any) -> None:
    options = GenerationOptions(**{name: value})
    assert GenerationOptions.from_dict(options.to_dict()) == options
    hash(options)  # nothing in it can be changed from outside


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [(name, value, fault) for name, (_, wrong) in CASES.items() for value, fault in wrong],
    ids=str,
)
def test_a_wrong_value_is_named(name: str, value: Any, fault: str) -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions().replace(**{name: value})
    assert f"{name} is " in str(error.value)
    assert fault in str(error.value)
    assert isinstance(error.value, RagEngineError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"num_return_sequences": 3, "num_beams": 2},
            "num_return_sequences is 3, it must be at most num_beams (2)",
        ),
        (
            {"num_return_sequences": 3, "num_beams": 2, "marginalize": "sequence", "search": "joint"},
            "num_return_sequences is 3, it must be at most num_beams (2)",
        ),
        ({"num_return_sequences": 3, "num_beams": 2, "do_sample": True}, "at most num_beams (2)"),
        ({"min_length": 9, "max_length": 8}, "min_length is 9, it must be at most the longest"),
        ({"min_length": 9, "max_new_tokens": 7}, "min_length is 9, it must be at most the longest"),
        ({"min_new_tokens": 8, "max_length": 8}, "min_new_tokens is 8, it must be less than the"),
        ({"num_beam": 4}, "'num_beam' is not a generation option; did you mean 'num_beams'?"),
        ({"xyzzy": 4}, "'xyzzy' is not a generation option."),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_combination_is_named(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions().replace(**options)
    assert fault in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 3, "do_sample": True},  # that many draws
        {"num_return_sequences": 3, "marginalize": "sequence"},  # D candidates and more
        {"num_return_sequences": 3, "marginalize": "sequence", "search": "fast"},
        {"min_length": 8, "max_length": 8},
        {"min_new_tokens": 7, "max_length": 8},
        {"min_length": 9, "max_length": 4, "max_new_tokens": 20},  # max_new_tokens decides
    ],
    ids=str,
)
def test_a_right_combination_is_taken(options: dict[str, Any]) -> None:
    assert GenerationOptions().replace(**options).to_dict().items() >= options.items()


def test_all_wrong_options_are_named_at_once() -> None:
    wrong = {name: cases[0][0] for name, (_, cases) in CASES.items()}
    with pytest.raises(OptionsError) as error:
        GenerationOptions(**wrong)
    assert [name for name in OPTION_NAMES if f"{name} is " not in str(error.value)] == []


def test_wrong_values_and_wrong_combinations_are_named_together() -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions(top_p=0.0, num_return_sequences=3, num_beams=2)
    assert "top_p is 0.0" in str(error.value)
    assert "num_return_sequences is 3, it must be at most num_beams (2)" in str(error.value)


def test_all_unknown_names_are_named_at_once() -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions.from_dict({"num_beam": 1, "temprature": 2, "top_p": 0.5})
    assert all(f"did you mean {name!r}?" in str(error.value) for name in ("num_beams", "temperature"))


def test_lists_become_tuples() -> None:
    options = GenerationOptions(eos_token_id=[2, 3], bad_words_ids=[[1, 2]])
    assert options.eos_token_id == (2, 3)
    assert options.bad_words_ids == ((1, 2),)
    assert dataclasses.replace(options) == options


def test_token_ids_lists_every_token_an_option_names() -> None:
    options = GenerationOptions(
        eos_token_id=(2, 3), suppress_tokens=(4,), begin_suppress_tokens=(5,), bad_words_ids=((6, 7), (8,)),
        forced_bos_token_id=9, forced_eos_token_id=10, decoder_start_token_id=11,
    )  # fmt: skip
    assert sorted(token for tokens in options.token_ids().values() for token in tokens) == list(range(2, 12))


@given(
    st.dictionaries(
        st.sampled_from(OPTION_NAMES),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
    )
)
def test_any_values_are_options_or_one_clear_error(values: dict[str, Any]) -> None:
    try:
        options = GenerationOptions.from_dict(values)
    except OptionsError:
        return  # anything else fails the test
    assert GenerationOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize(
    ("min_length", "min_new_tokens", "token", "sequence"),
    [(0, None, 0, 0), (6, None, 6, 6), (6, 3, 6, 4), (3, 6, 7, 7), (6, 0, 6, 1), (0, 6, 7, 7)],
)
def test_min_new_tokens_replaces_min_length_in_rag_sequence_alone(
    min_length: int, min_new_tokens: int | None, token: int, sequence: int
) -> None:
    """`_prepare_generated_length`, which RagTokenForGeneration.generate does not call."""
    options = GenerationOptions(max_length=12, min_length=min_length, min_new_tokens=min_new_tokens)
    assert options.shortest == token
    for search in ("thorough", "fast", "joint"):
        assert options.replace(marginalize="sequence", search=search).shortest == sequence


def test_a_min_length_that_is_replaced_may_be_too_long() -> None:
    long = {"max_length": 6, "min_length": 9, "min_new_tokens": 2}
    with pytest.raises(OptionsError, match="min_length is 9"):
        GenerationOptions(**long)
    assert GenerationOptions(**long, marginalize="sequence").shortest == 3


@pytest.mark.parametrize("name", ["forced_bos_token_id", "forced_eos_token_id"])
def test_a_forced_token_that_is_suppressed_is_refused(name: str) -> None:
    with pytest.raises(OptionsError, match=f"{name} is 7, it must not be in suppress_tokens"):
        GenerationOptions(**{name: 7}, suppress_tokens=[3, 7])
    GenerationOptions(**{name: 7}, begin_suppress_tokens=[7], bad_words_ids=[[7]])  # as in transformers
