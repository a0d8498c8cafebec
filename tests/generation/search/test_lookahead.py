"""Reading ahead what the documents suggest changes no token and no score; it saves steps."""

import itertools
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ragengine import GenerationOptions
from ragengine.errors import OptionsError
from ragengine.generation.search import lookahead
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.greedy import greedy_tokens
from ragengine.generation.search.lookahead import LookaheadStep, search_step
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.step import SearchStep
from tests.support.table_model import BOS, EOS, START, TableModel, V


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    longest = draw(st.integers(2, 14))
    tokens = st.integers(0, V - 1)
    words = st.lists(tokens, min_size=1, max_size=2)
    return {
        "max_length": longest,
        "min_length": draw(st.integers(0, longest)),
        "eos_token_id": draw(st.sampled_from([EOS, [EOS, 4]])),
        "length_penalty": draw(st.sampled_from([-1.0, 0.0, 1.0])),
        "repetition_penalty": draw(st.sampled_from([1.0, 0.5, 1.5])),
        "no_repeat_ngram_size": draw(st.integers(0, 3)),
        "encoder_no_repeat_ngram_size": draw(st.sampled_from([0, 0, 3])),
        "bad_words_ids": draw(st.none() | st.lists(words, min_size=1, max_size=2)),
        "suppress_tokens": draw(st.none() | st.lists(tokens, max_size=V)),
        "begin_suppress_tokens": draw(st.none() | st.lists(tokens, max_size=2)),
        "forced_bos_token_id": draw(st.none() | st.just(BOS)),
        "forced_eos_token_id": draw(st.none() | st.just(EOS)),
    }  # fmt: skip


def outcome(step: SearchStep) -> list[Any]:
    outputs = beam_search(step)
    return [[(o.token_ids.tolist(), o.score, o.log_probs.tolist()) for o in each] for each in outputs]


def steps_of(
    seed: int, context: list[list[int]], options: dict[str, Any], ahead: int, ngram: int
) -> tuple[SearchStep, SearchStep, TableModel, TableModel]:
    """The same search without and with suggestions, and their models."""
    models = [TableModel(seed, 1, len(context)) for _ in range(2)]
    width = max(map(len, context))
    ids = np.array([[*row, *[-1] * (width - len(row))] for row in context])[None]
    asked = ({}, {"prompt_lookup_num_tokens": ahead, "max_matching_ngram_size": ngram})
    plain, suggesting = (
        search_step(m, m.encoded, m.log_prior, Rules(GenerationOptions(**options, **more), ids))
        for m, more in zip(models, asked, strict=True)
    )
    assert type(suggesting) is LookaheadStep
    assert type(plain) is SearchStep
    return plain, suggesting, *models


CONTEXTS = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=12), min_size=1, max_size=3)


@hypothesis.given(
    seed=st.integers(0, 10_000), context=CONTEXTS, options=searches(), ahead=st.integers(1, 6),
    ngram=st.integers(1, 3), candidates=st.sampled_from([1, 2, 64]),
)  # fmt: skip
@hypothesis.settings(max_examples=200)
def test_every_token_and_score_is_that_of_a_search_without(
    seed: int, context: list[list[int]], options: dict[str, Any], ahead: int, ngram: int, candidates: int
) -> None:
    """So few candidates, too, that a row knows none of its own and is read again."""
    try:
        GenerationOptions(**options)
    except OptionsError:  # options that exclude each other
        hypothesis.reject()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookahead, "_CANDIDATES", candidates)
        plain, suggesting, _, _ = steps_of(seed, context, options, ahead, ngram)
        assert outcome(suggesting) == outcome(plain)


class CopyingModel(TableModel):
    """A model whose documents all let the token follow that comes next in ``TEXT``."""

    TEXT = (0, 3, 4, 1, 0, 4, 3, 0, 0, 1, 3, 1, 4, 4, EOS)

    def next_log_probs(self, row: int, prefix: tuple[int, ...]) -> np.ndarray:
        log_probs = np.full(V, np.log(0.01), np.float32)
        log_probs[self.TEXT[min(len(prefix), len(self.TEXT)) - 1]] = np.log(0.96)
        return log_probs


def copied(ahead: int | None, **options: Any) -> tuple[list[int], CopyingModel, SearchStep]:
    model = CopyingModel(q=1)
    context = np.array([[[1, *CopyingModel.TEXT[:-1]]] * model.d])
    asked = GenerationOptions(eos_token_id=EOS, max_length=20, prompt_lookup_num_tokens=ahead, **options)
    step = search_step(model, model.encoded, model.log_prior, Rules(asked, context))
    return [token.token_id for token in greedy_tokens(step)], model, step


def test_a_copied_answer_takes_fewer_steps() -> None:
    plain, one_by_one, _ = copied(None)
    found, ahead, _ = copied(5, max_matching_ngram_size=3)
    assert found == plain == list(CopyingModel.TEXT)
    assert len(one_by_one.steps) == len(plain)
    assert len(ahead.steps) <= 6
    # no step reads more than it was asked to, nor beyond the longest answer
    assert max(step.token_ids.shape[1] for step in ahead.steps) <= 6


def test_a_forced_token_needs_no_candidates() -> None:
    _, plain, _ = copied(5, max_matching_ngram_size=3)
    found, forced, _ = copied(5, max_matching_ngram_size=3, forced_bos_token_id=CopyingModel.TEXT[0])
    assert found == list(CopyingModel.TEXT)
    assert len(forced.steps) <= len(plain.steps)


@pytest.mark.parametrize("candidates", [1, 2])
@pytest.mark.parametrize("banned", [0, 1, 3, 4])
def test_a_row_that_has_banned_candidates_alone_is_read_again(
    banned: int, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its step took their places."""
    expected, _, _ = copied(None, suppress_tokens=[banned])
    monkeypatch.setattr(lookahead, "_CANDIDATES", candidates)
    found, model, _ = copied(5, suppress_tokens=[banned])
    assert found == expected
    assert all(step.num_candidates > 0 for step in model.steps)


def test_what_comes_after_a_banned_token_is_not_read() -> None:
    pairs = {*zip(CopyingModel.TEXT, CopyingModel.TEXT[1:], strict=False)}
    for banned in (1, 3, 4):
        _, model, _ = copied(5, suppress_tokens=[banned], max_matching_ngram_size=1)
        chains = [step.token_ids[0].tolist() for step in model.steps if step.chained]
        assert chains
        assert {pair for chain in chains for pair in itertools.pairwise(chain)} <= pairs


def test_nothing_is_read_beyond_the_longest_answer() -> None:
    """What follows the last token but one is the last token: it is never read."""
    for longest in (4, 7):
        _, model, _ = copied(9, max_new_tokens=longest)
        read = [step.token_ids[0].tolist() for step in model.steps]
        assert read == [[START], list(CopyingModel.TEXT[: longest - 1])]


def test_tokens_stream_as_their_step_is_made() -> None:
    model = CopyingModel(q=1)
    context = np.array([[[1, *CopyingModel.TEXT[:-1]]] * model.d])
    asked = GenerationOptions(
        eos_token_id=EOS, max_length=20, prompt_lookup_num_tokens=4, max_matching_ngram_size=3
    )
    step = search_step(model, model.encoded, model.log_prior, Rules(asked, context))
    made = []
    for token, expected in zip(greedy_tokens(step), CopyingModel.TEXT, strict=True):
        assert token.token_id == expected
        made.append(len(model.steps))
    assert made[0] == 1  # the first token is there after the first step
    assert made == sorted(made)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"do_sample": True},
        {"marginalize": "sequence", "search": "joint"},
        {"prompt_lookup_num_tokens": None},
    ],
    ids=str,
)
def test_other_searches_read_one_token_a_step(options: Any) -> None:
    model = TableModel(q=1)
    asked = GenerationOptions(eos_token_id=EOS, **{"prompt_lookup_num_tokens": 3, **options})
    rules = Rules(asked, np.zeros((1, 3, 4), np.int64))
    assert type(search_step(model, model.encoded, model.log_prior, rules)) is SearchStep


def test_a_batch_a_callback_and_an_older_bundle_read_one_token_a_step() -> None:
    asked = GenerationOptions(eos_token_id=EOS, prompt_lookup_num_tokens=3)
    older = TableModel(q=1)
    older.reads_chains = False
    for model, allowed in (
        (TableModel(q=2), None), (TableModel(q=1), lambda question, tokens: [EOS]), (older, None),
    ):  # fmt: skip
        rules = Rules(asked, np.zeros((model.q, 3, 4), np.int64), allowed)
        assert type(search_step(model, model.encoded, model.log_prior, rules)) is SearchStep
