"""`RagEngine.score` and `classify`: given answers instead of found ones."""

from typing import Any

import numpy as np
import pytest

from ragengine.errors import InputError, OptionsError
from ragengine.options import GenerationOptions
from ragengine_bench.parity.pairs import Pair

ASKED = "where is Quito?"
SETTINGS: dict[str, Any] = {"n_docs": 3, "search": "joint"}


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
@pytest.mark.parametrize("bos", [None, 0])
def test_the_score_of_what_was_generated_is_its_log_probability(
    pair: Pair, marginalize: str, bos: int | None
) -> None:
    settings = {**SETTINGS, "marginalize": marginalize, "forced_bos_token_id": bos}
    round_trips = 0
    for question in pair.questions(31, 8):
        answer = pair.engine.generate(question, num_beams=2, max_length=12, **settings)
        tokens = answer.hypotheses[0].token_ids
        if 1 in tokens:  # a random model may write pads, which cannot be scored
            continue
        if not (marginalize == "sequence" and len(tokens) == 1):  # get_nll's quirk
            scored = pair.engine.score(question, tokens, **settings)
            assert scored == pytest.approx(answer.log_prob, abs=1e-4)
        special = [0] * (bos is not None)
        tokenizer = pair.engine._tokenizer
        (own,) = tokenizer.encode_bare([answer.raw_text], 100)
        if tokens.tolist() == [*special, *own, 2] and len(tokens) > 1:
            round_trips += 1
            assert pair.engine.score(question, answer.raw_text, **settings) == pytest.approx(
                answer.log_prob, abs=1e-4
            )
    # An answer built to round-trip, so that the law is tested whatever the random model writes.
    text = " Quito is a city"
    (own,) = pair.engine._tokenizer.encode_bare([text], 100)
    ids = [0] * (bos is not None) + own + [2]
    assert pair.engine.score(ASKED, text, **settings) == pytest.approx(
        pair.engine.score(ASKED, ids, **settings), abs=1e-6
    )


def test_a_batch_scores_as_one_at_a_time(pair: Pair) -> None:
    questions = [ASKED, "what?", "who wrote it?"]
    answers: list[Any] = [" Quito", [0, 17, 30, 2], " a much longer answer, with many tokens"]
    together = pair.engine.score(questions, answers, **SETTINGS)
    alone = [pair.engine.score(q, a, **SETTINGS) for q, a in zip(questions, answers, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(type(score) is float and score < 0 for score in together)
    assert pair.engine.score([], []) == []


def test_text_is_scored_as_it_stands(pair: Pair) -> None:
    with_space, without = (pair.engine.score(ASKED, text, **SETTINGS) for text in (" Quito", "Quito"))
    assert abs(with_space - without) > 1e-3
    forced, free = (
        pair.engine.score(ASKED, " Quito", **SETTINGS, forced_bos_token_id=token) for token in (0, None)
    )
    assert abs(forced - free) > 1e-3
    explicit = pair.engine.score(ASKED, " Quito", **SETTINGS, forced_bos_token_id=None, with_bos=True)
    assert explicit == pytest.approx(forced, abs=1e-6)
    assert pair.engine.score(
        ASKED, " Quito", **SETTINGS, forced_bos_token_id=0, with_bos=False
    ) == pytest.approx(free, abs=1e-6)


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (ASKED, 3, "must be a str or a list of token ids"),
        (ASKED, [], r"float64 \[0\]"),
        (ASKED, [0.5], "float64"),
        (ASKED, [4, 1, 2], "holds the pad token 1"),
        (ASKED, [99999, 2], "99999"),
        (ASKED, "word " * 400, "scores at most"),
        (ASKED, "\ud800", "lone surrogates"),
        ([ASKED], ["a", "b"], "2 answers for 1 questions"),
        (None, "a", "NoneType"),
    ],
)
def test_answers_that_cannot_be_scored_are_one_clear_error(
    pair: Pair, question: Any, answer: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pair.engine.score(question, answer)
    with pytest.raises(OptionsError, match="did you mean 'n_docs'"):
        pair.engine.score(ASKED, " a", n_doc=2)


def test_classify_normalises_the_scores_of_the_labels(pair: Pair) -> None:
    labels = [" supports", " refutes", " says nothing"]
    found = pair.engine.classify(ASKED, labels, **SETTINGS)
    assert list(found) == labels
    assert sum(found.values()) == pytest.approx(1)
    scores = [pair.engine.score(ASKED, label, **SETTINGS) for label in labels]
    weights = np.exp(np.array(scores) - max(scores))
    assert list(found.values()) == pytest.approx((weights / weights.sum()).tolist(), abs=1e-4)
    assert pair.engine.classify(ASKED, [" only"], **SETTINGS) == {" only": 1.0}


@pytest.mark.parametrize("labels", [[], "yes", ["a", "a"], ["a", 3]])
def test_unusable_labels_are_one_clear_error(pair: Pair, labels: Any) -> None:
    with pytest.raises(InputError, match="list of different strings"):
        pair.engine.classify(ASKED, labels)


def test_bos_of_a_model_without_one_is_refused(pair: Pair) -> None:
    from dataclasses import replace

    from ragengine.pipeline.labels import build_labels

    spec = replace(pair.engine.bundle.manifest.generator, bos_token_id=None)
    tokenizer = pair.engine._tokenizer
    options = GenerationOptions(eos_token_id=(2, 7))
    with pytest.raises(OptionsError, match="no BOS token; give forced_bos_token_id"):
        build_labels([" a"], options, tokenizer=tokenizer, spec=spec, with_bos=True)
    labels = build_labels([" a", [9]], options, tokenizer=tokenizer, spec=spec, with_bos=None)
    (own,) = tokenizer.encode_bare([" a"], 100)
    assert labels.tolist() == [[2, *own, 2], [2, 9] + [1] * len(own)]
