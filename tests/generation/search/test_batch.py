"""Questions that are done leave the batch: fewer rows are computed, and every answer stays the same."""

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ragengine import GenerationOptions
from ragengine.generation.search import beam_search as beams_module
from ragengine.generation.search import prefix_trie, sampling
from ragengine.generation.search.batch import Batch, leave_now
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.sampling import sample
from ragengine.generation.search.step import SearchStep
from tests.support.table_model import EOS, TableModel, V


@st.composite
def searches(draw: st.DrawFn) -> GenerationOptions:
    beams, longest = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    return GenerationOptions(
        num_beams=beams,
        num_return_sequences=draw(st.integers(1, beams)),
        max_length=longest,
        min_length=draw(st.integers(0, longest)),
        eos_token_id=draw(st.sampled_from([EOS, [EOS, 4]])),
        length_penalty=draw(st.sampled_from([-1.0, 0.0, 1.0])),
        early_stopping=draw(st.sampled_from([True, False, "never"])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
        no_repeat_ngram_size=draw(st.sampled_from([0, 2])),
        do_sample=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
        top_k=draw(st.sampled_from([0, 3])),
        marginalize=draw(st.sampled_from(["token", "sequence"])),
        search="joint",
    )


def found(model: TableModel, options: GenerationOptions, questions: list[int]) -> list[Any]:
    """What is returned for some of the model's questions in one batch, to the last bit."""
    chosen = np.array(questions)
    # a callback that tells questions apart by their numbers
    allowed = {row: {EOS, 3, row % V} for row in range(model.q)}
    rules = Rules(
        options, None, lambda row, tokens: allowed[questions[row]] if options.seed == 0 else range(V)
    )
    encoded = model.encoded.of_questions(chosen)
    step = SearchStep(model, encoded, model.log_prior[chosen], rules)
    draws = options.do_sample and options.num_beams == 1
    outputs = sample(step) if draws else beam_search(step)
    return [[(o.token_ids.tolist(), o.score, o.log_probs.tolist()) for o in each] for each in outputs]


def rows(model: TableModel) -> int:
    """The rows [Q, B] that all steps computed together."""
    return sum(step.token_ids.size for step in model.steps)


@hypothesis.given(seed=st.integers(0, 10_000), questions=st.integers(1, 9), options=searches())
@hypothesis.example(  # all that is allowed after the one living beam is banned there, not after dead ones
    seed=0,
    questions=3,
    options=GenerationOptions(
        num_beams=3, no_repeat_ngram_size=2, max_length=5, min_length=4, eos_token_id=EOS, search="joint"
    ),
)
@hypothesis.settings(max_examples=100)
def test_an_answer_is_that_of_its_question_alone(
    seed: int, questions: int, options: GenerationOptions
) -> None:
    together = found(TableModel(seed, questions), options, list(range(questions)))
    for question in range(questions):
        assert found(TableModel(seed, questions), options, [question]) == together[question : question + 1]


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "seed": 1, "top_k": 3}], ids=str)
def test_fewer_rows_are_computed(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = GenerationOptions(eos_token_id=EOS, max_length=16, **options)
    leaving, staying = TableModel(3, 8), TableModel(3, 8)
    ours = found(leaving, asked, list(range(8)))
    for module in (beams_module, sampling):
        monkeypatch.setattr(module, "leave_now", lambda done: done.all())
    assert found(staying, asked, list(range(8))) == ours
    assert rows(leaving) < 0.8 * rows(staying)
    assert len(leaving.steps) == len(staying.steps)


def test_given_outputs_leave_after_the_longest_of_their_question() -> None:
    model = TableModel(q=4, d=2)
    outputs = [[np.array([3] * length)] for length in (1, 6, 2, 3)]
    prefix_trie.output_log_probs(model, model.encoded, outputs, [2] * 4)
    assert [len(step.token_ids) for step in model.steps] == [4, 3, 2, 1, 1, 1]


def test_questions_that_left_keep_their_outputs_and_places() -> None:
    batch: Any = Batch(4)
    batch.collect(np.array([False, True, False, False]), [["a"], ["b"], ["c"], ["d"]])
    batch.keep(np.array([3, 0, 2]))
    batch.collect(np.array([True, False, True]), [["D"], ["A"], ["C"]])
    batch.keep(np.array([1]))
    batch.collect(np.array([True]), [["AA"]])
    assert batch.outputs == [["AA"], ["b"], ["C"], ["D"]]


@pytest.mark.parametrize(
    ("done", "size", "leaves"), [(0, 8, False), (1, 8, False), (2, 8, True), (1, 2, True)]
)
def test_a_quarter_of_the_batch_leaves_together(done: int, size: int, leaves: bool) -> None:
    assert leave_now(np.arange(size) < done) is leaves
