"""Beam search over the marginal: with a beam for every prefix it finds the best outputs there are."""

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ragengine import GenerationOptions
from ragengine.generation.search import beam_search as module
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.step import SearchStep
from tests.support.table_model import EOS, TableModel, V
from tests.support.toys import sequence_likelihood, token_likelihood

LONGEST = 3  # tokens
LIKELIHOODS = {"token": token_likelihood, "sequence": sequence_likelihood}


def options_of(**changed: Any) -> GenerationOptions:
    return GenerationOptions(**{"eos_token_id": EOS, "max_length": LONGEST + 1, **changed})


def searched(model: TableModel, options: GenerationOptions) -> list[list[tuple[int, ...]]]:
    found = beam_search(SearchStep(model, model.encoded, model.log_prior, Rules(options)))  # type: ignore[arg-type]
    return [[tuple(output.token_ids.tolist()) for output in outputs] for outputs in found]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("marginalize", ["token", "sequence"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_all_beams_find_the_best_outputs(seed: int, marginalize: Any, length_penalty: float) -> None:
    model, beams = TableModel(seed), V**LONGEST
    options = options_of(
        num_beams=beams, num_return_sequences=4, length_penalty=length_penalty, early_stopping="never",
        marginalize=marginalize, search="joint",
    )  # fmt: skip
    for question, found in enumerate(searched(model, options)):
        outputs = model.outputs(question, LONGEST)
        scores = {
            tokens: LIKELIHOODS[marginalize](model.log_prior[question], given) / len(tokens) ** length_penalty
            for tokens, given in outputs.items()
        }
        assert found == sorted(scores, key=lambda tokens: -scores[tokens])[:4]


def test_one_beam_takes_the_most_probable_token_each_step() -> None:
    model = TableModel(seed=4)
    ((found,), _) = searched(model, options_of())
    prefix: tuple[int, ...] = ()
    for token in found:
        rows = [model.next_log_probs(row, (2, *prefix)) for row in range(model.d)]
        marginal = np.logaddexp.reduce(model.log_prior[0][:, None] + np.stack(rows), axis=0)
        assert token == marginal.argmax()
        prefix += (token,)


def test_a_question_does_not_depend_on_its_neighbours() -> None:
    """The second ends after the first, which waits unchanged."""
    model, options = TableModel(seed=1), options_of(num_beams=2, num_return_sequences=2, max_length=9)
    together = searched(model, options)
    step = SearchStep(model, model.encoded, model.log_prior, Rules(options))  # type: ignore[arg-type]
    first = beam_search(step)[0]
    assert together[0] == [tuple(output.token_ids.tolist()) for output in first]
    alone = TableModel(seed=1, q=1)
    alone_prior = model.log_prior[:1]
    found = beam_search(SearchStep(alone, alone.encoded, alone_prior, Rules(options)))  # type: ignore[arg-type]
    assert [tuple(output.token_ids.tolist()) for output in found[0]] == together[0]


def test_early_stopping_ends_at_enough_finished_outputs() -> None:
    """It makes no more steps than a search that goes on, and fewer for some seed."""
    fewer = 0
    for seed in range(8):
        counts = []
        for early_stopping in (True, "never"):
            model = TableModel(seed, q=1)
            searched(model, options_of(num_beams=3, max_length=12, early_stopping=early_stopping))
            counts.append(len(model.steps))
        assert counts[0] <= counts[1]
        fewer += counts[0] < counts[1]
    assert fewer


def test_nothing_is_found_where_everything_is_banned() -> None:
    model = TableModel()
    assert searched(model, options_of(suppress_tokens=list(range(V)))) == [[], []]


def outcome(model: TableModel, options: GenerationOptions) -> tuple[list[Any], int]:
    """What is returned, to the last bit, and the number of steps."""
    found = beam_search(SearchStep(model, model.encoded, model.log_prior, Rules(options)))  # type: ignore[arg-type]
    outputs = [[(o.token_ids.tolist(), o.score, o.log_probs.tolist()) for o in each] for each in found]
    return outputs, len(model.steps)


@st.composite
def searches(draw: st.DrawFn) -> GenerationOptions:
    beams, longest = draw(st.integers(1, 5)), draw(st.integers(2, 12))
    return GenerationOptions(
        num_beams=beams,
        num_return_sequences=draw(st.integers(1, beams)),
        max_length=longest,
        min_length=draw(st.integers(0, longest)),
        eos_token_id=draw(st.sampled_from([EOS, [EOS, 5], [EOS, 5, 6]])),
        length_penalty=draw(st.floats(-3, 3) | st.sampled_from([0.0, 1.0])),
        early_stopping=draw(st.sampled_from([True, False, "never"])),
        repetition_penalty=draw(st.sampled_from([1.0, 0.5, 1.5])),
        no_repeat_ngram_size=draw(st.sampled_from([0, 1, 2])),
        marginalize=draw(st.sampled_from(["token", "sequence"])),
        search="joint",
    )


def unbounded(model: TableModel, options: GenerationOptions) -> tuple[list[Any], int]:
    """The same loop without the bound: it ends where transformers ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_settled", lambda running, *_: np.zeros(len(running.scores), np.bool_))
        return outcome(model, options)


@hypothesis.given(seed=st.integers(0, 10_000), questions=st.integers(1, 3), options=searches())
@hypothesis.settings(max_examples=150)
def test_an_early_end_changes_nothing(seed: int, questions: int, options: GenerationOptions) -> None:
    ours, steps = outcome(TableModel(seed, questions), options)
    theirs, more = unbounded(TableModel(seed, questions), options)
    assert ours == theirs
    assert steps <= more


def test_an_early_end_saves_steps() -> None:
    """Where one output is returned of several that are searched for."""
    options, steps, more = options_of(num_beams=4, max_length=12, length_penalty=0.0), 0, 0
    for seed in range(20):
        steps += outcome(TableModel(seed, 1), options)[1]
        more += unbounded(TableModel(seed, 1), options)[1]
    assert steps < 0.95 * more
