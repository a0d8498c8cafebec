"""Rules and the candidates they leave, against transformers' own logits processors in their own order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from ragengine import GenerationOptions
from ragengine.errors import OptionsError
from ragengine.generation.decoders.base import StepOutputs
from ragengine.generation.marginalization import logsumexp
from ragengine.generation.search.candidates import probe_ids, ruled
from ragengine.generation.search.rules import Rules, StepRules, alike, shared

V = 8
LONGEST = 10
TOKEN = st.integers(0, V - 1)
TOKENS = st.lists(TOKEN, min_size=1, max_size=3, unique=True)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "no_repeat_ngram_size": st.integers(1, 4),
    "encoder_no_repeat_ngram_size": st.integers(1, 3),
    "repetition_penalty": st.sampled_from([0.5, 0.9, 1.3, 2.0]),
    "bad_words_ids": st.lists(st.lists(TOKEN, min_size=1, max_size=3), min_size=1, max_size=4),
    "suppress_tokens": TOKENS,
    "begin_suppress_tokens": TOKENS,
    "min_length": st.integers(1, LONGEST),
    "min_new_tokens": st.integers(1, LONGEST - 1),
    "forced_bos_token_id": TOKEN,
    "forced_eos_token_id": TOKEN,
    "eos_token_id": TOKENS,
}
MODEL = BartForConditionalGeneration(
    BartConfig(
        vocab_size=V, d_model=2, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=2, decoder_ffn_dim=2,
        encoder_attention_heads=1, decoder_attention_heads=1, max_position_embeddings=4,
    )
)  # fmt: skip


def transformers_scores(
    options: dict[str, Any], sequences: np.ndarray, log_probs: np.ndarray, context: np.ndarray, allowed: Any
) -> np.ndarray:
    """What all of transformers' processors make of log p(y_t | x, y_<t), float32 [B, V]."""
    config = GenerationConfig(
        **{"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2, **options},
        max_length=LONGEST,
        num_beams=len(sequences),
    )
    MODEL._prepare_special_tokens(config, True)
    processors = MODEL._get_logits_processor(
        config,
        input_ids_seq_length=1,
        encoder_input_ids=torch.tensor(context),
        prefix_allowed_tokens_fn=allowed,
        device="cpu",
    )
    scores: np.ndarray = processors(torch.tensor(sequences), torch.tensor(log_probs)).numpy()
    return scores


def at_lengths(options: dict[str, Any], *lengths: int) -> Callable[[Any], Any]:
    """Examples with ``options`` after so many tokens, where a rule begins or ends."""

    def add(test: Any) -> Any:
        for length in lengths:
            test = example(0, 2, length, options, 9, False)(test)
        return test

    return add


@settings(max_examples=400, deadline=None)
@at_lengths({"forced_bos_token_id": 4}, 1, 2)
@at_lengths({"forced_eos_token_id": 4}, LONGEST - 2, LONGEST - 1)
@at_lengths({"forced_eos_token_id": 4, "forced_bos_token_id": 5, "eos_token_id": [3]}, 1, LONGEST - 1)
@at_lengths({"begin_suppress_tokens": [3, 4, 5]}, 1, 2)
@at_lengths({"begin_suppress_tokens": [3, 4, 5], "forced_bos_token_id": 6}, 2, 3)
@at_lengths({"suppress_tokens": [3, 4, 5]}, 1, 5)
@at_lengths({"min_length": 4, "eos_token_id": [2, 3, 4]}, 3, 4)
@at_lengths({"min_new_tokens": 4, "eos_token_id": [2, 3, 4]}, 4, 5)
@at_lengths({"no_repeat_ngram_size": 1}, 1, 8)
@at_lengths({"no_repeat_ngram_size": 2}, 1, 8)
@at_lengths({"encoder_no_repeat_ngram_size": 1}, 1, 8)
@at_lengths({"encoder_no_repeat_ngram_size": 2}, 1, 8)
@at_lengths({"bad_words_ids": [[3], [4], [2], [5, 6, 7]], "eos_token_id": [2]}, 1, 8)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, LONGEST - 1),
    st.lists(st.sampled_from(sorted(OPTIONS)), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: OPTIONS[name] for name in names})
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_the_best_candidates_are_those_of_transformers(
    seed: int, beams: int, length: int, options: dict[str, Any], count: int, restricted: bool
) -> None:
    """One step of a search on a made-up model: the best ``count`` continuations under all rules at once.

    transformers bans suppressed tokens after it forces one, and then nothing is left: not tested.
    """
    suppressed = {*options.get("suppress_tokens", []), *options.get("begin_suppress_tokens", [])}
    forced = {options.get("forced_bos_token_id"), options.get("forced_eos_token_id")}
    assume(not suppressed & forced and not (restricted and suppressed))
    rng = np.random.default_rng(seed)
    sequences = rng.integers(0, V, (beams, length))
    context = rng.integers(0, V, (1, 6))
    by_document = rng.normal(scale=2, size=(3, beams, V)).astype(np.float32)
    by_document -= logsumexp(by_document, axis=2)[..., None]  # log p(y_t | x, z, y_<t), [D, B, V]
    weights = rng.normal(size=(3, beams)).astype(np.float32)
    weights -= logsumexp(weights, axis=0)  # [D, B]
    marginal = logsumexp(by_document + weights[..., None], axis=0)  # [B, V]
    beam_scores = rng.normal(size=beams).astype(np.float32)

    def allowed(question: int, tokens: np.ndarray) -> list[int]:
        return [(int(tokens[-1]) + step) % V for step in (1, 2, 5)]

    rules = Rules(
        GenerationOptions(**{"eos_token_id": 2, **options}, max_length=LONGEST),
        context[None],
        allowed if restricted else None,
    )
    step_rules = rules.at(sequences[None])
    probes = probe_ids(step_rules, filler=2)
    # What the graph returns: the best of all beams, and the probes.
    totals = (marginal + beam_scores[:, None]).ravel()
    best = np.argsort(-totals, kind="stable")[: 1 if step_rules.named else count + step_rules.margin]
    outputs = StepOutputs(
        scores=totals[None, best],
        beams=(best // V)[None],
        tokens=(best % V)[None],
        log_probs=by_document.reshape(3, -1)[None, :, best],
        probe_log_probs=np.take_along_axis(by_document, probes[0][None], axis=2)[None],
    )
    ours = ruled(
        outputs, step_rules, probes, beam_scores[None], weights[None], rules.options.repetition_penalty
    ).best(count)

    expected = transformers_scores(options, sequences, marginal, context, allowed if restricted else None)
    expected = (expected + beam_scores[:, None]).ravel()
    order = np.argsort(-expected, kind="stable")[:count]
    alive = np.isfinite(expected[order])
    found = np.isfinite(ours.scores[0])
    assert found.sum() == alive.sum()
    np.testing.assert_allclose(ours.scores[0][found], expected[order][alive], rtol=1e-5, atol=1e-5)
    places = (ours.beams[0] * V + ours.tokens[0])[found]
    np.testing.assert_allclose(expected[places], ours.scores[0][found], rtol=1e-5, atol=1e-5)
    assert len(set(places.tolist())) == len(places)
    # A rule may change the score, never the probabilities that the posterior is made of.
    np.testing.assert_array_equal(ours.log_probs[0][:, found], by_document.reshape(3, -1)[:, places])


def test_an_allowed_token_that_is_banned_as_well_is_taken() -> None:
    """As transformers: a constraint that nothing satisfies wins over the bans, and counts 0."""
    sequences = np.array([[2, 4, 5]])
    log_probs = np.log(np.full((1, V), 1 / V, np.float32))
    options = {"bad_words_ids": [[4]], "no_repeat_ngram_size": 1}
    expected = transformers_scores(options, sequences, log_probs, np.zeros((1, 1), int), lambda *_: [4, 5])
    rules = Rules(
        GenerationOptions(**options, max_length=LONGEST, eos_token_id=2), None, lambda *_: [4, 5]
    ).at(sequences[None])
    probes = probe_ids(rules, filler=2)
    outputs = StepOutputs(
        *(np.zeros((1, 1), dtype) for dtype in (np.float32, np.int64, np.int64)),
        log_probs=np.zeros((1, 1, 1), np.float32),
        probe_log_probs=np.full((1, 1, 1, probes.shape[2]), -np.log(V), np.float32),
    )
    ours = ruled(outputs, rules, probes, np.zeros((1, 1), np.float32), np.zeros((1, 1, 1), np.float32), 1.0)
    assert sorted(ours.tokens[0].tolist()) == np.flatnonzero(np.isfinite(expected[0])).tolist() == [4, 5]
    np.testing.assert_array_equal(ours.scores[0], expected[0, [4, 5]])


def test_a_word_is_banned_where_all_of_it_but_its_end_stands_last() -> None:
    words, sequences = [[5, 6, 7], [6, 3], [6, 5, 4], [5, 0]], np.array([[2, 5, 6], [2, 6, 5], [5, 6, 2]])
    options = {"bad_words_ids": words}
    expected = transformers_scores(options, sequences, np.zeros((3, V), "f4"), np.zeros((1, 1), int), None)
    (banned,) = Rules(GenerationOptions(**options, max_length=LONGEST)).at(sequences[None]).banned
    assert banned == [{*np.flatnonzero(np.isneginf(row)).tolist()} for row in expected]
    assert banned == [{7, 3}, {4, 0}, set()]


def test_a_constraint_that_allows_nothing_is_an_error() -> None:
    rules = Rules(GenerationOptions(eos_token_id=2), None, lambda question, tokens: [])
    with pytest.raises(OptionsError, match=r"allows no token after \[2, 3\] of question 0"):
        rules.at(np.array([[[2, 3]]]))


@pytest.mark.parametrize("ids", [None, np.zeros((2, 3, 4), np.int64)], ids=["no ids", "ids"])
def test_rules_by_document_know_their_question(ids: np.ndarray | None) -> None:
    """Two questions of three documents each: the constraint is asked about the question."""
    asked: list[int] = []

    def allowed(question: int, tokens: np.ndarray) -> list[int]:
        asked.append(question)
        return [2]

    options = GenerationOptions(eos_token_id=2)
    Rules(options, ids, allowed).by_document(options, 3).at(np.full((6, 1, 1), 2))
    assert asked == [0, 0, 0, 1, 1, 1]


def test_rules_by_document_ban_the_n_grams_of_that_document_alone() -> None:
    options = GenerationOptions(encoder_no_repeat_ngram_size=2, eos_token_id=2)
    context = np.array([[[3, 4, 5], [3, 6, 7]], [[3, 5, -1], [4, 3, 3]]])
    after_3 = np.full((4, 1, 1), 3)
    alone = Rules(options, context).by_document(options, 2).at(after_3)
    assert alone.banned == [[{4}], [{6}], [{5}], [{3}]]
    assert Rules(options, context).at(after_3[:2]).banned == [[{4, 6}], [{5, 3}]]


def test_padding_is_no_n_gram() -> None:
    """-1 marks it; how far documents are padded must not decide what may follow."""
    options = GenerationOptions(encoder_no_repeat_ngram_size=2, eos_token_id=2)
    context = np.array([[[3, 4, 2, -1, -1]]])
    assert Rules(options, context).at(np.array([[[2]]])).banned[0][0] - {-1} == set()
    assert Rules(options, context).at(np.array([[[2, 3]]])).banned == [[{4}]]


def test_one_set_for_all_is_told_from_sets_that_differ() -> None:
    assert shared(alike({3, 4}, 3, 2)) == shared([[{3, 4}, {4, 3}]] * 3) == {3, 4}
    assert shared([[{3}, {3}], [{3}, {4}]]) is None
    assert shared([[{3}, set()]]) is None
    assert shared(alike(set(), 1, 1)) == set()


@given(sets=st.lists(st.sets(st.integers(0, 5)), min_size=2, max_size=2), beams=st.integers(1, 3))
def test_sets_of_all_beams_give_what_sets_by_beam_give(sets: list[set[int]], beams: int) -> None:
    """The margin without a loop is that of the loop."""
    banned, penalised = (alike(tokens, 2, beams) for tokens in sets)
    rules = StepRules(None, banned, penalised, None)
    assert rules.margin == beams * len(sets[0] | sets[1])
    assert rules.changed_everywhere == sets[0] | sets[1]
    other = {*range(9)}
    odd = StepRules(None, [*banned, [other] * beams], [*penalised, [other] * beams], None)
    assert odd.changed_everywhere is None
    assert odd.margin == beams * len(other)
