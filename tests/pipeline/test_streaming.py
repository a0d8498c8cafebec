"""`RagEngine.stream`: the same answer, token by token."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ragengine.errors import InputError, OptionsError
from ragengine.pipeline.streaming import TextPieces
from ragengine.tokenization import _CLEAN_UP
from ragengine_bench.parity.pairs import Pair

ASKED = "where is Quito?"
ENGLISH = st.lists(
    st.sampled_from(
        [" ", ".", "?", ",", "'", "n", "t", "'s", "n't", " 've", "r", "e", "m", "no", "word", "\ufffd"]
    )
)


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_a_stream_gives_the_answer_of_generate(pair: Pair, marginalize: str) -> None:
    settings = {"n_docs": 3, "num_beams": 1, "max_length": 14, "marginalize": marginalize, "search": "joint"}
    for question in [ASKED, *pair.questions(41, 3)]:
        answer = pair.engine.generate(question, **settings)
        stream = pair.engine.stream(question, **settings)
        assert [d.id for d in stream.documents] == [d.id for d in answer.documents]
        tokens = list(stream)
        assert [token.token_id for token in tokens] == answer.hypotheses[0].token_ids.tolist()
        assert "".join(token.text for token in tokens) == answer.text == stream.text
        np.testing.assert_allclose([t.log_prob for t in tokens], answer.token_log_probs, atol=1e-4)
        np.testing.assert_allclose([t.posterior for t in tokens], answer.token_posteriors, atol=1e-4)
        assert list(stream) == []
        finished = stream.answer()
        assert finished.score == pytest.approx(answer.score, abs=1e-4)
        assert finished.log_prob == pytest.approx(answer.log_prob, abs=1e-4)
        assert (finished.texts, finished.tokens) == (answer.texts, answer.tokens)
        assert (finished.flags, finished.options) == (answer.flags, answer.options)
        assert list(finished.timings_ms) == list(answer.timings_ms)
        np.testing.assert_allclose(
            [d.posterior for d in finished.documents], [d.posterior for d in answer.documents], atol=1e-4
        )


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5])
def test_a_finished_stream_has_the_score_of_generate(pair: Pair, penalty: float) -> None:
    settings = {"num_beams": 1, "max_length": 9, "length_penalty": penalty, "forced_eos_token_id": 2}
    for question in pair.questions(11, 3):
        stream = pair.engine.stream(question, **settings)
        with pytest.raises(InputError, match="not finished after 0 tokens"):
            stream.answer()
        assert len(list(stream)) > 0
        assert stream.answer().score == pytest.approx(
            pair.engine.generate(question, **settings).score, abs=1e-4
        )


def test_closing_a_stream_early_leaves_the_engine_usable(pair: Pair) -> None:
    expected = pair.engine.generate(ASKED, num_beams=1, max_length=12).text
    with pair.engine.stream(ASKED, num_beams=1, max_length=12, min_length=8) as stream:
        next(stream)
        assert len(stream.token_ids) == 1
    assert list(stream) == []
    unread = pair.engine.stream(ASKED, num_beams=1)
    unread.close()
    assert pair.engine.generate(ASKED, num_beams=1, max_length=12).text == expected


def test_two_streams_do_not_touch_each_other(pair: Pair) -> None:
    settings = {"num_beams": 1, "max_length": 10, "min_length": 8}
    questions = [ASKED, "who wrote the book?"]
    streams = [pair.engine.stream(question, **settings) for question in questions]
    pairs = list(zip(*streams, strict=False))
    assert len(pairs) >= 7
    for number, question in enumerate(questions):
        expected = pair.engine.generate(question, **settings).hypotheses[0].token_ids.tolist()
        assert [tokens[number].token_id for tokens in pairs] == expected[: len(pairs)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 2}, "num_beams=2.*cannot stream"),
        ({"do_sample": True, "num_beams": 1}, "cannot stream"),
        ({"marginalize": "sequence", "num_beams": 1}, "cannot stream.*search='joint'"),
    ],
)
def test_searches_that_cannot_stream_are_refused_at_once(
    pair: Pair, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        pair.engine.stream(ASKED, **settings)


def test_one_question_at_a_time(pair: Pair) -> None:
    with pytest.raises(InputError):
        pair.engine.stream([ASKED, ASKED], num_beams=1)


@pytest.mark.parametrize("text", ["naïve 東京 🙂🙂 fin", "🙂", "a\u0301 мир", "\ufffd broken \ufffd"])
def test_a_character_of_several_tokens_comes_whole(pair: Pair, text: str) -> None:
    tokenizer = pair.engine._tokenizer
    (ids,) = tokenizer.encode_bare([text], 100)
    assert len(ids) > len(text) / 2
    pieces = TextPieces(tokenizer)
    given = [pieces.push(token, last=False) for token in ids[:-1]]
    assert not any("\ufffd" in piece for piece in given) or "\ufffd" in text
    given.append(pieces.push(ids[-1], last=True))
    assert "".join(given) == tokenizer.decode(ids)
    cut = TextPieces(tokenizer)
    held = [cut.push(token, last=token == ids[-2]) for token in ids[:-1]]
    assert "".join(held) == tokenizer.decode(ids[:-1])  # half a character at the end is not lost


class _Plain:
    """Tokens that are strings, decoded as `Tokenizer.decode` does with clean-up of spaces."""

    class spec:
        clean_up_tokenization_spaces = True

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts

    def decode(self, ids: list[int]) -> str:
        text = "".join(self.parts[token] for token in ids)
        for old, new in _CLEAN_UP:
            text = text.replace(old, new)
        return text


@hypothesis.settings(max_examples=1000)
@hypothesis.example(["do", " ", "n", "'", "t"])
@hypothesis.example(["we", " ", "'", "v", "e", " go"])
@hypothesis.example(["it", " ", " ", "'", " ", "s"])
@hypothesis.example([".", ".", " ", "'", " ", "."])
@hypothesis.given(ENGLISH)
def test_what_was_given_is_never_taken_back_by_clean_up(parts: list[str]) -> None:
    tokenizer: Any = _Plain(parts)
    pieces = TextPieces(tokenizer)
    last = len(parts) - 1
    given = "".join(pieces.push(number, last=number == last) for number in range(len(parts)))
    assert given == tokenizer.decode(list(range(len(parts)))).lstrip()


def test_words_are_not_held_back_longer_than_needed() -> None:
    tokenizer: Any = _Plain([" the", " capital", " is", " ,", " Quito"])
    pieces = TextPieces(tokenizer)
    assert [pieces.push(n, last=n == 4) for n in range(5)] == ["the", " capital", "", " is,", " Quito"]
