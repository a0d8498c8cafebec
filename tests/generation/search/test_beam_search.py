"""Beam search over the marginal: with a beam for every prefix it finds the best outputs there are."""

from typing import Any, ClassVar

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ragengine import GenerationOptions
from ragengine.generation.search import beam_search as module
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.step import SearchStep
from tests.support.table_model import EOS, START, TableModel, V
from tests.support.toys import sequence_likelihood, token_likelihood

LONGEST = 3  # tokens
LIKELIHOODS = {"token": token_likelihood, "sequence": sequence_likelihood}


def options_of(**changed: Any) -> GenerationOptions:
    return GenerationOptions(**{"eos_token_id": EOS, "max_length": LONGEST + 1, **changed})


def searched(model: TableModel, options: GenerationOptions) -> list[list[tuple[int, ...]]]:
    found = beam_search(SearchStep(model, model.encoded, model.log_prior, Rules(options)))
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


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 4.0])
def test_one_beam_takes_the_most_probable_token_each_step(early_stopping: Any, length_penalty: float) -> None:
    """And it ends with the first end token, however much a longer output would be worth."""
    for seed in range(8):
        model = TableModel(seed)
        settings = {"early_stopping": early_stopping, "length_penalty": length_penalty}
        ((found,), _) = searched(model, options_of(max_length=7, **settings))
        expected: list[int] = []
        while len(expected) < 6 and EOS not in expected:
            rows = [model.next_log_probs(row, (START, *expected)) for row in range(model.d)]
            marginal = np.logaddexp.reduce(model.log_prior[0][:, None] + np.stack(rows), axis=0)
            expected.append(int(marginal.argmax()))
        assert list(found) == expected


def test_a_question_does_not_depend_on_its_neighbours() -> None:
    """The second ends after the first, which waits unchanged."""
    model, options = TableModel(seed=1), options_of(num_beams=2, num_return_sequences=2, max_length=9)
    together = searched(model, options)
    step = SearchStep(model, model.encoded, model.log_prior, Rules(options))
    first = beam_search(step)[0]
    assert together[0] == [tuple(output.token_ids.tolist()) for output in first]
    alone = TableModel(seed=1, q=1)
    alone_prior = model.log_prior[:1]
    found = beam_search(SearchStep(alone, alone.encoded, alone_prior, Rules(options)))
    assert [tuple(output.token_ids.tolist()) for output in found[0]] == together[0]


@pytest.mark.parametrize("length_penalty", [1.0, 2.0])
def test_early_stopping_saves_steps_and_never_finds_more(length_penalty: float) -> None:
    """True ends at enough finished outputs, False where longer ones look worse, "never" where they are."""
    fewer, better = [0, 0], [0, 0]
    for seed in range(40):
        scores, steps = [], []
        for early_stopping in (True, False, "never"):
            settings = {"early_stopping": early_stopping, "length_penalty": length_penalty}
            (((_, score, _),),), count = outcome(
                TableModel(seed, q=1), options_of(num_beams=3, max_length=14, **settings)
            )
            scores.append(score)
            steps.append(count)
        assert steps == sorted(steps)
        assert scores == sorted(scores)
        fewer = [found + (a < b) for found, a, b in zip(fewer, steps, steps[1:], strict=False)]
        better = [found + (a < b) for found, a, b in zip(better, scores, scores[1:], strict=False)]
    assert min(fewer) > 0
    assert min(better) > 0


@pytest.mark.parametrize(("eos", "kept"), [(None, 4), (EOS, 4), ([EOS, 0, 4], 8)])
def test_as_many_candidates_as_in_transformers_are_kept(eos: Any, kept: int) -> None:
    """`beams_to_keep`: one more for each beam than there are end tokens, and at least two."""
    model = TableModel(seed=5, q=1)
    searched(model, options_of(num_beams=2, eos_token_id=eos, max_length=9, early_stopping="never"))
    first, *others = [step.num_candidates for step in model.steps]
    assert first == min(kept, V)
    assert {*others} == {kept}


def test_nothing_is_found_where_everything_is_banned() -> None:
    model = TableModel()
    assert searched(model, options_of(suppress_tokens=list(range(V)))) == [[], []]


def outcome(model: TableModel, options: GenerationOptions) -> tuple[list[Any], int]:
    """What is returned, to the last bit, and the number of steps."""
    found = beam_search(SearchStep(model, model.encoded, model.log_prior, Rules(options)))
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


@pytest.mark.parametrize(("seed", "length_penalty"), [(5, 1.0), (13, 1.0), (6, 2.0), (26, 2.0)])
def test_a_question_ends_by_its_own_outputs(seed: int, length_penalty: float) -> None:
    """Each of these would find a longer output if it went on until the others have found theirs."""
    options = options_of(num_beams=3, max_length=14, length_penalty=length_penalty)
    (first, *_), _ = outcome(TableModel(seed, q=4), options)
    ((alone,), _) = outcome(TableModel(seed, q=1), options)
    ((longer,), _) = outcome(TableModel(seed, q=1), options.replace(early_stopping="never"))
    assert first == alone
    assert alone[0][1] < longer[0][1]


@hypothesis.given(seed=st.integers(0, 10_000), options=searches())
def test_company_changes_nothing(seed: int, options: GenerationOptions) -> None:
    (first, *_), _ = outcome(TableModel(seed, q=4), options)
    ((alone,), _) = outcome(TableModel(seed, q=1), options)
    assert first == alone


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


class Given(TableModel):
    """Log-probabilities by prefix and token; all that is not given is improbable."""

    table: ClassVar[dict[tuple[int, ...], dict[int, float]]] = {}

    def next_log_probs(self, row: int, prefix: tuple[int, ...]) -> np.ndarray:
        log_probs = np.full(V, -9, np.float32)
        for token, log_prob in self.table.get(prefix[1:], {}).items():
            log_probs[token] = log_prob
        return log_probs


def test_a_probability_that_is_rounded_above_1_still_counts() -> None:
    """The end is a little more probable than token 3, after which it is certain, and rounded up."""

    class RoundedUp(Given):
        table: ClassVar = {(): {EOS: -1.0, 3: -1.0004}, (3,): {EOS: 9e-4}}

    assert searched(RoundedUp(q=1, d=1), options_of(num_beams=2, length_penalty=0.0)) == [[(3, EOS)]]


def test_a_beam_as_good_as_what_is_finished_is_given_up() -> None:
    """As in transformers, though the third token would have made it better."""

    class Tied(Given):
        table: ClassVar = {(): {EOS: -1.0, 3: -1.0}, (3,): {EOS: -1.0, 4: -1.0}, (3, 4): {EOS: 0.0}}

    options = options_of(num_beams=2, num_return_sequences=2, max_length=9)
    assert searched(Tied(q=1, d=1), options) == [[(EOS,), (3, EOS)]]
    assert searched(Tied(q=1, d=1), options.replace(early_stopping="never")) == [[(3, 4, EOS), (EOS,)]]
