"""Generation options: defaults as transformers has them, and every fault at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from ragengine import GenerationOptions, RagEngineError
from ragengine.errors import OptionsError
from ragengine.options import OPTION_NAMES


def test_defaults_are_those_of_transformers() -> None:
    theirs = {k: v for k, v in GenerationConfig._get_default_generation_params().items() if k in OPTION_NAMES}
    assert {"num_beams", "num_return_sequences", "length_penalty", "early_stopping"} <= set(theirs)
    ours = GenerationOptions().to_dict()
    assert {name: ours[name] for name in theirs} == theirs


def test_names_are_those_of_transformers() -> None:
    rag = {"n_docs", "marginalize"}
    assert set(OPTION_NAMES) - rag <= set(GenerationConfig().to_dict())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_beams": 0}, "num_beams is 0, it must be a whole number of at least 1"),
        ({"num_beams": 2.0}, "num_beams is 2.0, it must be a whole number"),
        ({"num_beams": True}, "num_beams is True"),
        ({"n_docs": 0}, "n_docs is 0"),
        ({"max_length": 1}, "max_length is 1, it must be a whole number of at least 2"),
        ({"min_length": -1}, "min_length is -1"),
        (
            {"num_return_sequences": 3, "num_beams": 2},
            "num_return_sequences is 3, it must be at most num_beams (2)",
        ),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"length_penalty": "1"}, "length_penalty is '1'"),
        ({"early_stopping": 1}, "early_stopping is 1, it must be True, False or 'never'"),
        ({"early_stopping": "always"}, "early_stopping is 'always'"),
        ({"marginalize": "both"}, "marginalize is 'both'"),
        ({"eos_token_id": (2, -1)}, "eos_token_id is (2, -1), it must be a token id"),
        ({"forced_bos_token_id": "<s>"}, "forced_bos_token_id is '<s>'"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ({"num_beam": 4}, "'num_beam' is not a generation option; did you mean 'num_beams'?"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions().replace(**options)
    assert fault in str(error.value)
    assert isinstance(error.value, RagEngineError)
    assert isinstance(error.value, ValueError)


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(OptionsError) as error:
        GenerationOptions(num_beams=0, max_length=0, length_penalty=None, early_stopping="no")  # type: ignore[arg-type]
    assert all(n in str(error.value) for n in ("num_beams", "max_length", "length_penalty", "early_stopping"))


@given(
    st.dictionaries(
        st.sampled_from(OPTION_NAMES),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    )
)
def test_any_values_are_options_or_one_clear_error(values: dict[str, Any]) -> None:
    try:
        options = GenerationOptions.from_dict(values)
    except OptionsError:
        return  # anything else fails the test
    assert GenerationOptions.from_dict(options.to_dict()) == options
