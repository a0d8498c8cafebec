"""Laws that hold for every checkpoint, mostly on the low-level `Generator`.

A law compares the engine with itself, so most hold to float32 rounding (`ROUNDING`); where Hugging Face is
one side, its numbers are met to `TOLERANCE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ragengine import Generator
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair, full_dict, full_options
from ragengine_bench.parity.reference import BeamOfOne

SEEDS = range(1000, 1006)
ROUNDING = 2e-5
TOLERANCE = 1e-4
SEARCHES: tuple[dict[str, Any], ...] = (
    {"num_beams": 1, "max_length": 14},
    {
        "num_beams": 3,
        "num_return_sequences": 3,
        "max_length": 16,
        "early_stopping": True,
        "length_penalty": 0.5,
    },
    {"num_beams": 5, "num_return_sequences": 2, "max_length": 12, "no_repeat_ngram_size": 2, "min_length": 5},
    {
        "num_beams": 2,
        "max_length": 9,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "length_penalty": 2.0,
    },
)
each_search = pytest.mark.parametrize("search", SEARCHES, ids=("greedy", "beam3", "beam5", "forced"))
_BEAMS: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3, "max_length": 12, "early_stopping": True}
_SAMPLING: dict[str, Any] = {"do_sample": True, "seed": 11, "max_length": 12}
MORE_SEARCHES: dict[str, dict[str, Any]] = {
    "thorough": {"marginalize": "sequence", **_BEAMS},
    "thorough-all": {
        "marginalize": "sequence",
        **_BEAMS,
        "num_return_sequences": 15,
        "do_deduplication": False,
        "encoder_no_repeat_ngram_size": 2,
        "repetition_penalty": 1.2,
    },
    "thorough-greedy": {"marginalize": "sequence", "num_beams": 1, "num_return_sequences": 3},
    "fast": {"marginalize": "sequence", "search": "fast", **_BEAMS, "no_repeat_ngram_size": 2},
    "joint": {"marginalize": "sequence", "search": "joint", **_BEAMS},
    "joint-greedy": {"marginalize": "sequence", "search": "joint", "repetition_penalty": 1.3},
    "sample": {**_SAMPLING, "no_repeat_ngram_size": 1, "top_k": 9},
    "sample-many": {**_SAMPLING, "num_return_sequences": 3, "temperature": 1.5},
    "beam-sample": {**_SAMPLING, "num_beams": 3, "top_k": 0, "top_p": 0.95, "repetition_penalty": 1.2},
    "sample-joint": {**_SAMPLING, "marginalize": "sequence", "search": "joint", "typical_p": 0.9},
    "sample-thorough": {**_SAMPLING, "marginalize": "sequence", "num_return_sequences": 2},
}
every_search = pytest.mark.parametrize(
    "search",
    [*SEARCHES, *MORE_SEARCHES.values()],
    ids=("greedy", "beam3", "beam5", "forced", *MORE_SEARCHES),
)


@dataclass(frozen=True)
class Case:
    """A checkpoint, its low-level generator, and what three questions retrieve: D is 5."""

    pair: Pair
    generator: Generator
    questions: list[str]
    ids: np.ndarray  # int64 [Q, D, S]
    mask: np.ndarray  # int64 [Q, D, S]
    doc_scores: np.ndarray  # float32 [Q, D]


@pytest.fixture(scope="module", params=SEEDS, ids="seed{}".format)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    # The question encoder's own limit is left alone; the generator must take 300 tokens of padding.
    spec = random_spec(request.param, positions=311, max_combined_length=130)
    pair = build_pair(spec, tmp_path_factory.mktemp(f"laws{request.param}"))
    questions = pair.questions(0, 3)
    return Case(pair, pair.generator(), questions, *pair.reference.contexts(questions, 5))


def assert_same(
    ours: Any, expected: Any, permutation: Any = slice(None), tolerance: float = ROUNDING
) -> None:
    """Two lists [Q] of lists of hypotheses are the same, but for the order `permutation` of the documents."""
    assert len(ours) == len(expected)
    for mine, others in zip(ours, expected, strict=True):
        assert [list(h.token_ids) for h in mine] == [list(h.token_ids) for h in others]
        for hypothesis, other in zip(mine, others, strict=True):
            assert hypothesis.score == pytest.approx(other.score, abs=tolerance, rel=tolerance)
            assert hypothesis.log_prob == pytest.approx(other.log_prob, abs=tolerance, rel=tolerance)
            posteriors = other.token_posteriors[:, permutation]
            np.testing.assert_allclose(hypothesis.token_posteriors, posteriors, atol=tolerance)


@every_search
def test_permuting_the_documents_permutes_the_posteriors_only(case: Case, search: dict[str, Any]) -> None:
    options = full_options(**search)
    straight = case.generator.generate(case.ids, case.mask, case.doc_scores, options)
    for order in (np.array([4, 3, 2, 1, 0]), np.array([2, 0, 4, 1, 3])):
        shuffled = case.generator.generate(
            case.ids[:, order], case.mask[:, order], case.doc_scores[:, order], options
        )
        assert_same(shuffled, straight, permutation=order)


@every_search
def test_a_batch_is_its_questions_one_at_a_time(case: Case, search: dict[str, Any]) -> None:
    options = full_options(**search)
    together = case.generator.generate(case.ids, case.mask, case.doc_scores, options)
    for question in range(len(case.questions)):
        one = slice(question, question + 1)
        longest = int(case.mask[one].sum(axis=-1).max())
        alone = case.generator.generate(
            case.ids[one, :, :longest], case.mask[one, :, :longest], case.doc_scores[one], options
        )
        assert_same(alone, together[one])


def test_the_engine_answers_a_batch_as_one_at_a_time(case: Case) -> None:
    options = {"num_beams": 3, "num_return_sequences": 2, "max_length": 12, "n_docs": 4}
    questions = [*case.questions, case.questions[0]]
    together = case.pair.engine.generate(questions, **options)
    alone = [case.pair.engine.generate(question, **options) for question in questions]
    assert_same([answer.hypotheses for answer in alone], [answer.hypotheses for answer in together])
    for mine, other in zip(alone, together, strict=True):
        assert mine.text == other.text
        assert [document.id for document in mine.documents] == [document.id for document in other.documents]


@each_search
def test_padding_to_300_is_padding_to_the_longest(case: Case, search: dict[str, Any]) -> None:
    options = full_options(**search)
    extra = ((0, 0), (0, 0), (0, 300 - case.ids.shape[2]))
    # Any token may stand in the padding, as long as the mask hides it.
    for filler in (case.pair.reference.model.generation_config.pad_token_id, 7):
        ids = np.pad(case.ids, extra, constant_values=filler)
        padded = case.generator.generate(ids, np.pad(case.mask, extra), case.doc_scores, options)
        assert_same(padded, case.generator.generate(case.ids, case.mask, case.doc_scores, options))


@every_search
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_document_with_prior_0_changes_nothing(case: Case, search: dict[str, Any], place: int) -> None:
    _check_an_intruder(case, search, -np.inf, place)


@each_search
@pytest.mark.parametrize("place", [0, 5])
def test_a_document_with_a_score_of_almost_nothing_changes_nothing(
    case: Case, search: dict[str, Any], place: int
) -> None:
    """Its prior is 0 in float32.  (In RAG-Sequence it still may propose outputs: they count.)"""
    _check_an_intruder(case, search, -1e30, place)


def _check_an_intruder(case: Case, search: dict[str, Any], nothing: float, place: int) -> None:
    options = full_options(**search)
    rng = np.random.default_rng(place)
    intruder = rng.integers(5, 250, (len(case.ids), case.ids.shape[2]))
    with_intruder = case.generator.generate(
        np.insert(case.ids, place, intruder, axis=1),
        np.insert(case.mask, place, 1, axis=1),
        np.insert(case.doc_scores, place, np.float32(nothing), axis=1),
        options,
    )
    without = case.generator.generate(case.ids, case.mask, case.doc_scores, options)
    own = [document for document in range(6) if document != place]
    for mine, others in zip(with_intruder, without, strict=True):
        assert [list(h.token_ids) for h in mine] == [list(h.token_ids) for h in others]
        for hypothesis, other in zip(mine, others, strict=True):
            assert hypothesis.score == pytest.approx(other.score, abs=ROUNDING, rel=ROUNDING)
            assert not hypothesis.token_posteriors[:, place].any()
            np.testing.assert_allclose(
                hypothesis.token_posteriors[:, own], other.token_posteriors, atol=ROUNDING
            )


@every_search
def test_posteriors_are_distributions_over_the_documents(case: Case, search: dict[str, Any]) -> None:
    for hypotheses in case.generator.generate(case.ids, case.mask, case.doc_scores, full_options(**search)):
        for hypothesis in hypotheses:
            assert hypothesis.token_posteriors.shape == (len(hypothesis.token_ids), case.ids.shape[1])
            assert (hypothesis.token_posteriors >= 0).all()
            np.testing.assert_allclose(hypothesis.token_posteriors.sum(axis=1), 1, atol=1e-5)


@each_search
def test_posteriors_and_log_probs_are_those_of_the_model(case: Case, search: dict[str, Any]) -> None:
    """p(z|x, y_<=t) = p(z|x) p(y_t|x,z,y_<t) / sum over z, recomputed by HF with teacher forcing.

    RAG-Token's prior does not accumulate: every token weighs the documents anew.
    """
    answers = case.generator.generate(case.ids, case.mask, case.doc_scores, full_options(**search))
    for question, hypotheses in enumerate(answers):
        one = slice(question, question + 1)
        prior = case.doc_scores[question].astype(np.float64)
        prior -= np.logaddexp.reduce(prior)
        for hypothesis in hypotheses:
            tokens = [int(token) for token in hypothesis.token_ids]
            log_probs = case.pair.reference.document_log_probs(
                case.ids[one], case.mask[one], case.doc_scores[one], tokens
            )
            joint = log_probs + prior  # [T, D]
            marginal = np.logaddexp.reduce(joint, axis=1)  # [T]
            assert hypothesis.log_prob == pytest.approx(marginal.sum(), abs=TOLERANCE)
            np.testing.assert_allclose(
                hypothesis.token_posteriors, np.exp(joint - marginal[:, None]), atol=TOLERANCE, rtol=0
            )


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_one_beam_is_greedy(case: Case, early_stopping: bool | str) -> None:
    """Whatever `early_stopping` says: HF's greedy search stops at the first end token, so one beam does."""
    search = {"num_beams": 1, "max_length": 14, "length_penalty": 0.7}
    # transformers 4 takes nothing of the checkpoint where RAG-Token is given a generation config
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    greedy = case.pair.reference.decode(case.ids, case.mask, case.doc_scores, full_dict(**search))
    # As arguments: a None inside a GenerationConfig is filled in from the checkpoint, an argument is not.
    beam = case.pair.reference.decode(
        case.ids,
        case.mask,
        case.doc_scores,
        full_dict(**search, early_stopping=True),
        generation_config=BeamOfOne(**special),
    )
    ours = case.generator.generate(
        case.ids, case.mask, case.doc_scores, full_options(**search, early_stopping=early_stopping)
    )
    for hypotheses, expected, beamed in zip(ours, greedy, beam, strict=True):
        assert [int(token) for token in hypotheses[0].token_ids] == expected.hypotheses[0].token_ids
        assert beamed.hypotheses[0].token_ids == expected.hypotheses[0].token_ids
        assert hypotheses[0].score == pytest.approx(expected.hypotheses[0].score, abs=TOLERANCE)


@each_search
def test_cache_on_is_cache_off(case: Case, search: dict[str, Any]) -> None:
    """The engine always caches; HF can do without, so it is asked both ways."""
    ours = case.generator.generate(case.ids, case.mask, case.doc_scores, full_options(**search))
    for use_cache in (True, False):
        options = full_dict(**search, use_cache=use_cache)
        expected = case.pair.reference.decode(case.ids, case.mask, case.doc_scores, options)
        for hypotheses, reference in zip(ours, expected, strict=True):
            found = [hypothesis for hypothesis in reference.hypotheses if hypothesis.found]
            assert [[int(token) for token in h.token_ids] for h in hypotheses] == [h.token_ids for h in found]
            scores = [hypothesis.score for hypothesis in hypotheses]
            np.testing.assert_allclose(scores, [h.score for h in found], atol=TOLERANCE)


def test_one_beam_of_rag_sequence_reprices_log_probabilities(case: Case) -> None:
    """As beam search does.  HF's greedy search would apply the penalty to the generator's raw logits."""
    search = {"num_beams": 1, "max_length": 12, "repetition_penalty": 1.4, "min_length": 6}
    expected = case.pair.sequence_reference.decode(
        case.ids,
        case.mask,
        case.doc_scores,
        full_dict(**search, early_stopping=True),
        generation_config=BeamOfOne(),
    )
    ours = case.generator.generate(
        case.ids, case.mask, case.doc_scores, full_options(**search, marginalize="sequence")
    )
    for (hypothesis,), answer in zip(ours, expected, strict=True):
        assert hypothesis.token_ids.tolist() == answer.hypotheses[0].token_ids
        assert hypothesis.score == pytest.approx(answer.hypotheses[0].score, abs=TOLERANCE)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_no_n_gram_of_any_document_is_repeated(case: Case, size: int, marginalize: str) -> None:
    """RAG-Token and joint decoding read all documents at once, so none of theirs may occur.

    transformers cannot say: with several documents it takes them for as many questions.
    """
    options = full_options(
        num_beams=3, num_return_sequences=3, max_length=12, encoder_no_repeat_ngram_size=size,
        marginalize=marginalize, search="joint",
    )  # fmt: skip
    free = case.generator.generate(
        case.ids, case.mask, case.doc_scores, options.replace(encoder_no_repeat_ngram_size=0)
    )
    ids = case.ids.copy()
    for question, hypotheses in enumerate(free):  # one document says what the answer would have been
        words = [2, *hypotheses[0].token_ids.tolist()][: int(case.mask[question, 3].sum())]
        ids[question, 3, : len(words)] = words
    answers = case.generator.generate(ids, case.mask, case.doc_scores, options)
    for prompts, mask, found, before in zip(ids, case.mask, answers, free, strict=True):
        read = [row[own != 0].tolist() for row, own in zip(prompts, mask, strict=True)]
        ngrams = {tuple(row[i : i + size]) for row in read for i in range(len(row) - size + 1)}
        assert found[0].token_ids.tolist() != before[0].token_ids.tolist()
        for hypothesis in found:
            tokens = [2, *hypothesis.token_ids.tolist()] if size > 1 else hypothesis.token_ids.tolist()
            assert not ngrams & {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
