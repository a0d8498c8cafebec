"""Arrays, labels and functions given to `Generator` are checked, and normalised, before anything runs."""

from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.bundle.manifest import GeneratorSpec, TokenizerSpec
from ragengine.errors import InputError, OptionsError
from ragengine.generation.marginalization import log_prior
from ragengine.generation.validation import (
    check_streamable,
    check_tokens,
    checked_allowed,
    checked_contexts,
    checked_labels,
    checked_marginalize,
    numbered_from,
)

V = 50
SPEC = GeneratorSpec("generator", 1, 1, 8, V, 20, 1, 0, TokenizerSpec(1, 20, False))


def test_contexts_are_int64_masks_of_0_and_1_and_log_priors() -> None:
    ids = np.arange(12, dtype=np.int32).reshape(2, 2, 3)
    scores = np.array([[1.0, 2.0], [0.0, -np.inf]])
    contexts = checked_contexts(SPEC, ids.tolist(), ids % 3 != 0, scores)
    assert contexts.input_ids.dtype == contexts.attention_mask.dtype == np.int64
    for mask in (ids % 3 != 0, 7 * (ids % 3)):
        found = checked_contexts(SPEC, ids, mask, scores).attention_mask
        assert found.tolist() == (ids % 3 != 0).astype(int).tolist()
    assert contexts.log_prior.dtype == np.float32
    np.testing.assert_array_equal(contexts.log_prior, log_prior(scores.astype(np.float32)))


IDS, MASK, SCORES = np.full((2, 2, 3), 4), np.ones((2, 2, 3), int), np.zeros((2, 2), np.float32)
WRONG: dict[str, tuple[Any, Any, Any, str]] = {
    "a flat array": (IDS[0], MASK[0], SCORES[0], r"context_input_ids is int64 \[2, 3\]; int64 \[Q, D, S\]"),
    "no document": (IDS[:, :0], MASK[:, :0], SCORES[:, :0], r"int64 \[Q, D, S\] is expected"),
    "another mask": (IDS, MASK[:, :1], SCORES, r"context_attention_mask is int64 \[2, 1, 3\]"),
    "another score": (IDS, MASK, SCORES[:1], r"doc_scores is float32 \[1, 2\]; float32 \[2, 2\]"),
    "whole numbers as scores": (IDS, MASK, SCORES.astype(int), "doc_scores is int64"),
    "a ragged list": ([[[4], [4, 5]]], MASK, SCORES, "context_input_ids is not an array"),
    "too many tokens": (np.full((1, 1, 21), 4), np.ones((1, 1, 21), int), SCORES[:1, :1], "at most 20"),
    "a hidden document": (IDS, MASK * [[[1], [0]]], SCORES, "no token that the mask shows"),
    "a token beyond": (IDS + V, MASK, SCORES, f"context_input_ids hold token {V + 4}"),
    "a score that is no number": (IDS, MASK, SCORES * np.nan, "NaN"),
    "no document left": (IDS, MASK, SCORES - np.inf, "Every doc_score"),
}


@pytest.mark.parametrize("name", WRONG)
def test_contexts_that_do_not_fit_are_refused(name: str) -> None:
    *arrays, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        checked_contexts(SPEC, *arrays)


def test_labels_are_one_each_or_several_of_one_question() -> None:
    labels = np.array([[2, 5, 6], [2, 7, 1]])
    np.testing.assert_array_equal(checked_labels(SPEC, labels.tolist(), 2), labels)
    np.testing.assert_array_equal(checked_labels(SPEC, labels, 1), labels)
    wrong: list[tuple[Any, int, str]] = [
        (labels, 3, r"labels is int64 \[2, 3\]; int64 \[3, T\]"),
        (labels[0], 1, "labels is"),
        (labels * 0.5, 2, "labels is float64"),
        (labels[:, :0], 2, "labels is"),
        (labels * [[1], [2]], 1, "start with different tokens"),
        (np.full((1, 21), 2), 1, "the generator writes at most 20"),
        (labels - 9, 2, "labels hold token -8"),
    ]
    for array, questions, message in wrong:
        with pytest.raises(InputError, match=message):
            checked_labels(SPEC, array, questions)


def test_tokens_are_those_of_the_vocabulary() -> None:
    check_tokens("labels", np.array([0, V - 1]), SPEC)
    for outside in (-1, V):
        with pytest.raises(InputError, match=f"hold token {outside}; the vocabulary has tokens 0 to 49"):
            check_tokens("labels", np.array([3, outside]), SPEC)


def test_marginalize_is_one_of_two_or_the_default() -> None:
    assert checked_marginalize(None, "sequence") == "sequence"
    assert checked_marginalize("token", "sequence") == "token"
    for wrong in ("both", 3, ["token"]):
        with pytest.raises(OptionsError, match="marginalize is"):
            checked_marginalize(wrong, "token")


def test_only_searches_that_know_their_first_token_stream() -> None:
    check_streamable(GenerationOptions())
    check_streamable(GenerationOptions(marginalize="sequence", search="joint"))
    wrong: list[dict[str, Any]] = [{"num_beams": 2}, {"do_sample": True}, {"marginalize": "sequence"}]
    for options in wrong:
        with pytest.raises(OptionsError, match="cannot stream"):
            check_streamable(GenerationOptions(**options))


@pytest.mark.parametrize(
    ("options", "default", "expected"),
    [
        (
            {"num_beams": 4},
            {"num_beams": 4},
            "A search with num_beams=4 (the default of this model) cannot stream: what comes first may "
            "change until the end; give num_beams=1.",
        ),
        (
            {"num_beams": 3, "num_return_sequences": 2, "do_sample": True},
            {"num_beams": 4},
            "A search with num_beams=3, num_return_sequences=2, do_sample=True cannot stream: what comes "
            "first may change until the end; give num_beams=1, num_return_sequences=1, do_sample=False.",
        ),
        (
            {"marginalize": "sequence", "num_beams": 2},
            {},
            "RAG-Sequence with num_beams=2, search='thorough' (the default of this model) cannot stream: "
            "what comes first may change until the end; give num_beams=1, search='joint'.",
        ),
    ],
)
def test_the_error_says_how_to_ask_for_a_stream(
    options: dict[str, Any], default: dict[str, Any], expected: str
) -> None:
    asked = GenerationOptions(**options)
    with pytest.raises(OptionsError) as raised:
        check_streamable(asked, GenerationOptions(**default))
    assert str(raised.value) == expected
    remedy = expected.rpartition("give ")[2].rstrip(".").split(", ")
    values = {"1": 1, "False": False, "'joint'": "joint"}
    given: dict[str, Any] = {name: values[value] for name, value in (part.split("=") for part in remedy)}
    check_streamable(asked.replace(**given))


def test_allowed_tokens_come_as_numbers_of_the_vocabulary() -> None:
    assert checked_allowed(None, V) is None
    seen: list[Any] = []

    def function(question: int, tokens: np.ndarray) -> Any:
        seen.append((question, tokens.tolist()))
        return (np.int64(token) for token in (3, 4))

    allowed = checked_allowed(function, V)
    assert allowed is not None
    assert allowed(1, np.array([2])) == [3, 4]
    numbered = numbered_from(5, allowed)
    assert numbered is not None
    numbered(1, np.array([2, 3]))
    assert seen == [(1, [2]), (6, [2, 3])]
    assert numbered_from(5, None) is None


@pytest.mark.parametrize("returned", [None, 5, [1.5], [V], [-1], ["a"]], ids=repr)
def test_what_are_no_tokens_is_refused_when_it_is_returned(returned: Any) -> None:
    allowed = checked_allowed(lambda question, tokens: returned, V)
    assert allowed is not None
    with pytest.raises(InputError, match=r"prefix_allowed_tokens_fn returned .* for question 3"):
        allowed(3, np.array([2]))
    with pytest.raises(InputError, match="prefix_allowed_tokens_fn is int"):
        checked_allowed(5, V)
